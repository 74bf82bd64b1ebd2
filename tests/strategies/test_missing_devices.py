"""Devices that Flower cannot reach in a phase of a secure sum: the sum goes on, and the log says who they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from flwr.app import Message

from fedoel.protocol.secagg.device import PHASES
from fedoel.protocol.secagg.messages import ACTIONS
from fedoel.simulations.grid import FIRST_NODE_ID, NODE_UNAVAILABLE, server_identity

from .test_secure_mean import CLIENTS, Fleet, close


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@pytest.mark.parametrize("phase", PHASES)
def test_a_device_that_flower_takes_for_gone_is_named_with_the_phase(
    phase: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one is whose processes were all stopped: nobody says that it lives."""
    fleet = Fleet()
    push, gone = fleet.grid.push_messages, FIRST_NODE_ID + 2

    def without_it(messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        if asked[0].metadata.message_type == ACTIONS[phase]:
            fleet.grid._contexts.pop(gone, None)
        return push(asked)

    monkeypatch.setattr(fleet.grid, "push_messages", without_it)
    caplog.set_level("WARNING", "flwr")
    server = fleet.run()
    left = range(CLIENTS) if phase in ("confirm", "unmask") else [*range(2), *range(3, CLIENTS)]
    assert close(server.aggregates[0], left)
    reason = f"error code {NODE_UNAVAILABLE}"
    assert server.traffic[0].refused[f"{phase}: {reason}"] == 1
    said = f"exchange: {reason} (it no longer says that it lives) in phase '{phase}': node {gone}\n"
    assert caplog.text.count(said) == 1
