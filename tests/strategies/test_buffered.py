"""Asynchronous aggregation: the first arrivals count, late ones count less, and nobody waits for the slowest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.experience import Counters, ExperienceVector, VectorSpec
from fedoel.protocol.messages import PlayRequest, reply_to_records, request_from_records
from fedoel.simulations.grid import InProcessGrid, server_identity
from fedoel.strategies.buffered import STALE, Buffered

from .conftest import Ledger

SPEC = VectorSpec("tactics", 2, "vocabulary", "v1", ("coin",), 2, 50.0, 200.0)
CLIENTS = 4
SLOW = 3
HALF = 1e-3  # vectors travel in half precision


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


class Server(Ledger):
    """A server whose every exchange makes a new version."""

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        request = super().request(cycle, exchange)
        return replace(request, spec=replace(SPEC, policy_version=f"v{cycle}"))


def make_app(failing: int | None = None, tired: int = 0) -> ClientApp:
    """Client ``i`` answers with ``10 ** i`` in every place, so that a sum says who is in it; all refuse at first."""
    app, refused = ClientApp(), Counter[int]()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        if client == failing:
            raise FedoelError("code: GameError")
        if refused[client] < tired:
            refused[client] += 1
            raise FedoelError("code: NotNow")
        spec = request_from_records(message.content).spec
        part = np.full(2, 0.001 * 10.0**client, np.float32)
        counters = Counters(np.ones(spec.counters_shape, np.float32))
        return Message(reply_to_records(ExperienceVector(spec, part, part, counters)), reply_to=message)

    return app


class SlowGrid(InProcessGrid):
    """Hands a slow node's replies out only when it is asked for the `late`-th time."""

    def __init__(self, app: ClientApp, late: int) -> None:
        super().__init__(app, CLIENTS, {})
        self.late, self.pushed, self.asked, self.slow = late, 0, list[list[int]](), set[str]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        self.asked.append([message.metadata.dst_node_id - 1000 for message in sent])
        self.pushed += 1
        names = list(super().push_messages(sent))
        self.slow |= {n for n, m in zip(names, sent, strict=True) if m.metadata.dst_node_id == 1000 + SLOW}
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([n for n in message_ids if n not in self.slow or self.pushed >= self.late])


class OneByOneGrid(SlowGrid):
    """Hands out one reply at a time."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages(list(message_ids)[:1])


def run(
    late: int,
    cycles: int,
    failing: int | None = None,
    tired: int = 0,
    kind: type[SlowGrid] = SlowGrid,
    **settings: Any,
) -> tuple[Server, SlowGrid]:
    server, grid = Server(SPEC), kind(make_app(failing, tired), late)
    strategy = Buffered(server, min_available_nodes=CLIENTS, **settings)
    strategy.start(grid, num_rounds=cycles, timeout=0.3)
    return server, grid


def sums(server: Server) -> list[float]:
    return [1000 * float(each.vector.gradient[0]) if each else 0.0 for each in server.aggregates]


def test_nobody_waits_for_the_slowest_and_what_comes_late_counts_less() -> None:
    server, grid = run(late=3, cycles=3, buffer_size=3)
    assert grid.asked == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2]], "who is at work is left alone"
    assert sums(server) == pytest.approx([111, 111, 111 + 1000 / 3**0.5], rel=HALF)
    last = server.aggregates[-1]
    assert last is not None and last.cohort == 4 and last.vector.spec.policy_version == "v3"
    assert np.allclose(last.vector.fisher, last.vector.gradient), "old evidence is less evidence, in the same direction"
    assert float(last.vector.counters.episodes[0]) == 4
    assert [traffic.accepted for traffic in server.traffic] == [3, 3, 4]


def test_a_buffer_of_everybody_is_the_plain_sum() -> None:
    server, _ = run(late=0, cycles=2, buffer_size=CLIENTS)
    assert sums(server) == pytest.approx([1111, 1111], rel=HALF)


def test_half_of_those_at_work_is_enough_by_default() -> None:
    server, _ = run(late=9, cycles=1)
    assert sums(server) == pytest.approx([111], rel=HALF)


@pytest.mark.parametrize(("buffer_size", "expected"), [(0, 11), (1, 1), (3, 111)])
def test_no_more_is_taken_than_fills_the_buffer(buffer_size: int, expected: int) -> None:
    server, _ = run(late=0, cycles=1, kind=OneByOneGrid, buffer_size=buffer_size)
    assert sums(server) == pytest.approx([expected], rel=HALF)


def test_who_never_answers_is_given_up_and_asked_again() -> None:
    server, grid = run(late=99, cycles=4, buffer_size=3, max_staleness=1)
    assert grid.asked == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2]]
    assert [traffic.refused for traffic in server.traffic] == [{}, {}, {STALE: 1}, {}]


def test_when_the_time_is_over_what_is_there_counts() -> None:
    server, _ = run(late=99, cycles=1, buffer_size=CLIENTS)
    assert sums(server) == pytest.approx([111], rel=HALF)


def test_a_client_that_fails_does_not_fill_the_buffer_and_is_free_again() -> None:
    server, grid = run(late=0, cycles=2, failing=0, buffer_size=CLIENTS)
    assert sums(server) == pytest.approx([1110, 1110], rel=HALF)
    assert server.traffic[0].refused == {"client GameError": 1}
    assert grid.asked[1] == [0, 1, 2, 3]


@pytest.mark.parametrize("patience", [0.0, 1e6])
def test_where_nobody_is_ready_all_are_asked_again(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    server, grid = run(late=0, cycles=1, tired=2, buffer_size=CLIENTS, patience=patience)
    assert grid.asked == [[0, 1, 2, 3]] * (3 if patience else 1)
    assert sums(server) == pytest.approx([1111.0 if patience else 0.0], rel=HALF)
    assert server.traffic[0].refused == ({} if patience else {"client NotNow": CLIENTS})


@pytest.mark.parametrize("settings", [{"buffer_size": -1}, {"staleness_exponent": -0.5}, {"max_staleness": -1}])
def test_options_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        Buffered(Server(SPEC), **settings)
