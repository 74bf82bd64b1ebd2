"""Every message that asks devices to play has the fleet's log, as it is when the message is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message

from fedoel.protocol.fleet.log import EMPTY, LogExtract
from fedoel.protocol.messages import request_from_records
from fedoel.protocol.secagg.messages import ACTIONS, without_step
from fedoel.simulations.grid import InProcessGrid, server_identity
from fedoel.strategies.mean import Mean

from .conftest import Ledger
from .test_experience import SPEC, good, make_app
from .test_secure_mean import CLIENTS, Fleet


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def log(entries: int) -> LogExtract:
    return LogExtract(EMPTY, bytes(32 * entries), b"signature")


def test_a_request_that_is_sent_again_has_the_fleet_s_log_as_it_is_then() -> None:
    ledger, grid = Ledger(SPEC), InProcessGrid(make_app(good), 1, {})
    strategy = Mean(ledger, min_available_nodes=1)
    ledger.safeguards.log = log(1)
    [message] = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)
    assert request_from_records(message.content).log == log(1)
    ledger.safeguards.log = log(2)
    [message] = strategy._ask_again(grid)
    assert request_from_records(message.content).log == log(2)


def test_a_secure_sum_has_the_log_with_the_request() -> None:
    logs = list[LogExtract | None]()

    class Noting(InProcessGrid):
        def push_messages(self, messages: Iterable[Message]) -> Any:
            sent = list(messages)
            played = [message for message in sent if message.metadata.message_type == ACTIONS["masked"]]
            logs.extend(request_from_records(without_step(message.content)).log for message in played)
            return super().push_messages(sent)

    fleet = Fleet()
    fleet.grid = Noting(fleet.app(), CLIENTS, {})
    fleet.server.safeguards.log = log(3)
    fleet.run()
    assert logs == [log(3)] * CLIENTS
