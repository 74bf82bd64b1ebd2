"""Does a gate of trials on devices ever promote a version that loses?

    python benchmarks/promotions.py --seeds 0-19 --out runs/promotions

Runs federations without a language model whose server has no games, and reads from their summaries what every promotion
did on 1,000 held-out games, which decide nothing. Runs that are there already are read. Writes table.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the games lie beside this file, and under examples/

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.simulations.inprocess import run_inprocess

WORLDS = {
    "errand and vault": "examples.errand:ERRAND rooms=4 turns=8; benchmarks.vault:VAULT rooms=3 turns=8",
    "tidy": "tidy things=2 final=0 turns=12",
}
CYCLES, LOSS = 5, 0.03
SETTINGS: Mapping[str, Scalar] = {
    "cycles": CYCLES, "policy.backend": "tactics", "policy.threads": 1, "games.per-client": 6, "games.held-out": 1000,
    "games.held-out-teacher": 1, "strategy.name": "mean", "server.public": "prompts", "trial.contexts": False,
}  # fmt: skip


@dataclass(frozen=True)
class Promotion:
    """What one promotion did to the share of held-out games that are won."""

    seed: int
    cycle: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Change of that share."""
        return self.after - self.before


def promotions(seed: int, config: RunConfig) -> list[Promotion]:
    """Run a federation, unless its summary is there, and return its promotions."""
    summary = Path(config.out) / "summary.json"
    if not summary.exists() or len(json.loads(summary.read_text())["cycles"]) <= config.cycles:
        run_inprocess(config)
    cycles = json.loads(summary.read_text())["cycles"]
    rates = [cycle["held_out"]["win_rate"] for cycle in cycles]
    return [
        Promotion(seed, cycle["cycle"], rates[index - 1], rates[index])
        for index, cycle in enumerate(cycles)
        if cycle["decision"] == "promoted"
    ]


def row_of(world: str, devices: int, games: int, cycles: int, found: Sequence[Promotion]) -> str:
    """Return a row of the table."""
    gains = np.array([promotion.gain for promotion in found])
    losers = [f"seed {p.seed}, cycle {p.cycle}: {p.before:.0%} -> {p.after:.0%}" for p in found if p.gain < -LOSS]
    return (
        f"| {world} | {devices} | {games} | {cycles} | {len(found)} | {100 * gains.mean():+.1f} | "
        f"{100 * gains.min():+.1f} | {len(losers)}{': ' if losers else ''}{'; '.join(losers)} |"
    )


def main() -> None:
    """Run, count and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-19", help="first and last seed")
    parser.add_argument("--fleets", default="8:2,100:2", help="devices and games of a trial, for each fleet")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    first, last = (int(word) for word in arguments.seeds.split("-"))
    rows = ["| world | devices | games in a trial | cycles | promoted | mean gain | least | lost more than 3 points |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for world, families in WORLDS.items():
        for devices, games in (map(int, fleet.split(":")) for fleet in arguments.fleets.split(",")):
            found: list[Promotion] = []
            for seed in range(first, last + 1):
                out = arguments.out / f"{world.replace(' ', '-')}-{devices}-{games}-{seed}"
                found += promotions(seed, RunConfig.from_flat({
                    **SETTINGS, "seed": seed, "clients": devices, "games.families": families, "trial.games": games,
                    "trial.share": 1.0, "out": str(out.resolve()), "resume": out.exists(),
                }))  # fmt: skip
            rows.append(row_of(world, devices, games, CYCLES * (last + 1 - first), found))
            print("\n".join(rows), flush=True)
            (arguments.out / "table.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
