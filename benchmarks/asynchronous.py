"""How soon a fleet whose devices differ tenfold in speed gets somewhere: `buffered` against waiting for everybody.

    python benchmarks/asynchronous.py --seeds 0,1,2

31 devices, without a language model, on the two games of benchmarks/attacks.py. Time is simulated, in the time that the
fastest device takes to answer; the server's own work takes none. Prints when each first wins the share of the held-out
games that waiting for everybody ends with, less two points.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from flwr.app import Message

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the games lie beside this file, and under examples/

from fedoel.client.app import make_app
from fedoel.client.runtime import SimulatedRuntime
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.records.events import CycleFinished, Event
from fedoel.server.app import run
from fedoel.server.summary import read_summary
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity

CLIENTS, SLOWEST, TOLERANCE = 31, 10.0, 0.02  # 7 and 31 have no common factor: every duration is dealt out once
SETTINGS: Mapping[str, Scalar] = {
    "clients": CLIENTS, "policy.backend": "tactics", "games.per-client": 4, "games.partition": "dirichlet:0.5",
    "games.families": "examples.errand:ERRAND rooms=4 turns=8; benchmarks.vault:VAULT rooms=3 turns=8",
    "games.rehearsal": 48, "games.gate": 96, "games.held-out": 300, "games.held-out-teacher": 1,
    "strategy.min-available-nodes": CLIENTS, "server.public": "games",
}  # fmt: skip
ARMS: Mapping[str, Mapping[str, Scalar]] = {
    "mean": {"strategy.name": "mean", "cycles": 6},
    "buffered, half": {"strategy.name": "buffered", "strategy.options": "buffer-size=16", "cycles": 14},
    "buffered, a third": {"strategy.name": "buffered", "strategy.options": "buffer-size=10", "cycles": 20},
}
Curve = list[tuple[float, float]]


class PacedGrid(InProcessGrid):
    """Delivers replies when they are due; `now` is the simulated time, in the unit of the durations.

    Replies are computed when messages are pushed, and become available once the simulated duration of their device has
    passed. Pulling advances the simulated time to the next arrival.

    Parameters
    ----------
    duration
        Maps a client's number to the time that it takes to reply.
    """

    def __init__(self, *arguments: Any, duration: Callable[[int], float], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.now = 0.0
        self._duration = duration
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Compute the replies, and record when each is due."""
        sent = list(messages)
        ids = list(super().push_messages(sent))
        clients = [message.metadata.dst_node_id - FIRST_NODE_ID for message in sent]
        self._due |= {key: self.now + self._duration(client) for key, client in zip(ids, clients, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived; if there are none, advance the time to the next arrival."""
        pending = {key: self._due[key] for key in message_ids if key in self._due}
        if pending:
            self.now = max(self.now, min(pending.values()))
        return self._take([key for key, due in pending.items() if due <= self.now])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and advance the time to the arrival of the last reply."""
        ids = list(self.push_messages(messages))
        self.now = max([self.now, *(self._due[key] for key in ids)])
        return self._take(ids)

    def _take(self, ids: list[str]) -> Iterable[Message]:
        for key in ids:
            del self._due[key]
        return super().pull_messages(ids)


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    curves = {name: [curve(settings, seed) for seed in seeds] for name, settings in ARMS.items()}
    goals = [each[-1][1] - TOLERANCE for each in curves["mean"]]
    print("| strategy | at the end | simulated time to the synchronous result | share of its time |")
    print("|---|---|---|---|")
    waiting = [reached(each, goal) for each, goal in zip(curves["mean"], goals, strict=True)]
    for name, found in curves.items():
        times = [reached(each, goal) for each, goal in zip(found, goals, strict=True)]
        ends = ", ".join(f"{100 * each[-1][1]:.0f} %" for each in found)
        share = fmean(time / base for time, base in zip(times, waiting, strict=True))
        said = ", ".join("never" if time == math.inf else f"{time:.0f}" for time in times)
        print(f"| {name} | {ends} | {said} | {'-' if share == math.inf else f'{share:.0%}'} |")


def curve(settings: Mapping[str, Scalar], seed: int) -> Curve:
    """Simulated time and win rate after each cycle."""
    durations = spread_durations(CLIENTS, SLOWEST)
    times: list[float] = []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "run"
        config = RunConfig.from_flat({**SETTINGS, **settings, "seed": seed, "out": str(out), "cache": folder})
        runtime = SimulatedRuntime()

        def listen(event: Event) -> None:
            if isinstance(event, CycleFinished):
                times.append(grid.now)

        with server_identity():
            app = make_app(runtime)
            grid = PacedGrid(app, CLIENTS, config.to_flat(), duration=durations.__getitem__)
            run(grid, config, runtime.cache(config), listen, engine="paced")
        cycles = read_summary(out).cycles
    return list(zip(times, (record.held_out.win_rate for record in cycles), strict=True))


def spread_durations(clients: int, slowest: float) -> Mapping[int, float]:
    """Return durations from 1 to `slowest`, evenly spaced on a logarithmic scale, in a fixed mixed order of clients."""
    ranks = {client: (7 * client) % clients / max(1, clients - 1) for client in range(clients)}
    return {client: float(slowest**rank) for client, rank in ranks.items()}


def reached(found: Curve, goal: float) -> float:
    """First time at which a win rate was there; infinite if it never was."""
    return next((time for time, rate in found if rate >= goal), math.inf)


if __name__ == "__main__":
    main()
