"""Simulated time: replies arrive when their devices would have finished, and nobody has to wait for real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.asynchronous import PacedGrid, spread_durations
from fedoel.simulations.grid import FIRST_NODE_ID, server_identity

DURATIONS = {0: 1.0, 1: 4.0, 2: 10.0}


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def grid() -> PacedGrid:
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return PacedGrid(app, 3, {}, duration=DURATIONS.__getitem__)


def asked(*clients: int) -> list[Message]:
    return [Message(RecordDict(), dst_node_id=FIRST_NODE_ID + n, message_type="train.experience") for n in clients]


def clients_of(replies: Iterator[Message] | list[Message]) -> list[int]:
    return sorted(reply.metadata.src_node_id - FIRST_NODE_ID for reply in replies)


def test_pulling_moves_the_clock_to_the_next_arrival(grid: PacedGrid) -> None:
    names = list(grid.push_messages(asked(0, 1, 2)))
    assert grid.now == 0
    assert (clients_of(list(grid.pull_messages(names))), grid.now) == ([0], 1.0)
    names += list(grid.push_messages(asked(0)))
    assert (clients_of(list(grid.pull_messages(names))), grid.now) == ([0], 2.0)
    assert (clients_of(list(grid.pull_messages(names))), grid.now) == ([1], 4.0)
    assert (clients_of(list(grid.pull_messages(names))), grid.now) == ([2], 10.0)
    assert (list(grid.pull_messages(names)), grid.now) == ([], 10.0)


def test_who_waits_for_everybody_waits_for_the_slowest(grid: PacedGrid) -> None:
    for time in (10.0, 20.0):
        assert clients_of(list(grid.send_and_receive(asked(0, 1, 2)))) == [0, 1, 2]
        assert grid.now == time


def test_durations_spread_evenly_from_one_to_the_slowest() -> None:
    found = sorted(spread_durations(31, 10.0).values())
    assert len(set(found)) == 31 and found[0] == 1.0 and found[-1] == pytest.approx(10.0)
    assert found[15] == pytest.approx(10**0.5)
