"""Is the step too long? What finished runs without a language model would win with shares of each cycle's context.

    python benchmarks/step_length.py runs/experiments/blind/runs/three-families-server-with-prompts-*

For each cycle, the version that the cycle began with plays held-out games with a quarter, half, three quarters and the
whole of the context that the cycle came to. Prints a line a run and cycle, and the mean over the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.player import play_episodes
from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.cache import cache_folder
from fedoel.server.cycle.collect import numbered
from fedoel.server.cycle.phases import load_phase
from fedoel.server.public.game_plan import GamePlan
from fedoel.server.registry import VERSIONS, load_adapter
from fedoel.server.summary import read_summary

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def wins_of(folder: Path, games: int) -> list[list[float]]:
    """Return the share of held-out games won, for each cycle and each share of its last context."""
    summary, rows = read_summary(folder), list[list[float]]()
    config = RunConfig.from_flat(summary.config)
    measured, cache = GamePlan.of(config).held_out[:games], cache_folder(config)
    for record in summary.cycles[:-1]:
        before = TacticsPolicy.from_adapter(load_adapter(folder / VERSIONS / record.version)[1], record.version)
        last = numbered("context", config.strategy.exchanges)
        context = load_phase(folder, record.cycle + 1, last).arrays["weights"].astype(np.float32)
        policies = [replace(before, weights=before.weights + np.float32(share) * context) for share in SHARES]
        streams = list(range(len(measured)))
        rows.append([
            float(np.mean([t.won for t in play_episodes(policy, measured, streams, cache)])) for policy in policies
        ])  # fmt: skip
    return rows


def line(words: str, wins: Sequence[float]) -> str:
    """Return a line of the output."""
    return f"{words}: " + ", ".join(f"{share:g} -> {100 * won:.0f} %" for share, won in zip(SHARES, wins, strict=True))


def main() -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs with policy.backend=tactics")
    parser.add_argument("--games", type=int, default=99, help="held-out games that each policy plays")
    arguments = parser.parse_args()
    found = dict[int, list[list[float]]]()
    for run in arguments.runs:
        for cycle, wins in enumerate(wins_of(run, arguments.games), start=1):
            found.setdefault(cycle, []).append(wins)
            print(line(f"{run.name}, cycle {cycle}", wins), flush=True)
    for cycle, rows in found.items():
        print(line(f"mean of {len(rows)}, cycle {cycle}", list(np.mean(rows, axis=0))))


if __name__ == "__main__":
    main()
