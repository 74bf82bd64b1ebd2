"""A client of a large fleet costs what one of a small fleet does: counted in calls and bytes, not in seconds."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from fedoel.games.partition import mixture, mixtures
from fedoel.protocol.config import RunConfig
from fedoel.protocol.play import GameSpec
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.simulations.inprocess import games_ahead, run_inprocess


def fleet(clients: int, out: Path, **more: Any) -> RunConfig:
    return RunConfig.from_flat({
        "clients": clients, "cycles": 1, "games.families": "frozen-lake size=3 turns=3", "games.per-client": 1,
        "games.rehearsal": 2, "games.gate": 2, "games.held-out": 2, "policy.backend": "tactics", "out": str(out),
        "strategy.name": "mean", "server.public": "games", **more,
    })  # fmt: skip


def work(config: RunConfig) -> tuple[int, int]:
    """Run a federation; return the calls of Python functions, and the bytes that were read."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    sys.setprofile(count)
    try:
        run_inprocess(config)
    finally:
        sys.setprofile(None)
    return calls, bytes_read() - before


def test_the_cost_of_a_client_does_not_grow_with_the_fleet(tmp_path: Path, cache: Path) -> None:
    sizes = (2, 10, 20, 30)  # the first imports what is imported late
    spent = [work(fleet(n, tmp_path / str(n), **{"games.partition": "by-family"})) for n in sizes]
    _, ten, twenty, thirty = (dict(zip(("calls", "bytes"), each, strict=True)) for each in spent)
    for cost in ("calls", "bytes"):
        assert thirty[cost] - twenty[cost] < 1.15 * (twenty[cost] - ten[cost])


def test_clients_run_in_waves_and_a_wave_of_one_needs_no_thread() -> None:
    running, most, threads = set[int](), 0, set[int]()
    lock = threading.Lock()

    def app(message: Message, context: Context) -> Message:
        nonlocal most
        with lock:
            running.add(context.node_id)
            threads.add(threading.get_ident())
            most = max(most, len(running))
        barrier.wait(10)
        with lock:
            running.discard(context.node_id)
        return Message(RecordDict(), reply_to=message)

    with server_identity():
        for wave in (3, 1):
            barrier, most = threading.Barrier(wave), 0
            sent = [Message(RecordDict(), dst_node_id=FIRST_NODE_ID + n, message_type="train") for n in range(6)]
            replies = list(InProcessGrid(app, 6, {}, wave=wave).send_and_receive(sent))
            assert len(replies) == 6 and not any(reply.has_error() for reply in replies) and most == wave
            threads = threads if wave > 1 else threads - {threading.get_ident()}
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("partition", ["iid", "by-family", "dirichlet:0.5"])
def test_a_row_of_the_mixtures_is_known_alone(partition: str) -> None:
    specs = [GameSpec.parse(text) for text in ("frozen-lake size=3 turns=3", "sokoban size=5 turns=9")]
    rows = mixtures(specs, 7, partition, 3)
    assert all((mixture(specs, client, 7, partition, 3) == rows[client]).all() for client in range(7))


def test_games_that_need_no_preparation_are_not_looked_up_ahead(tmp_path: Path) -> None:
    assert next(games_ahead(fleet(100_000, tmp_path)), None) is None
    prepared = fleet(100_000, tmp_path, **{"games.families": "coin-collector level=2 turns=5"})
    assert next(games_ahead(prepared))[1] == 1  # of cycle 1, and of the first client
