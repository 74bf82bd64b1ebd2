"""Where rules conflict: one context for all devices, one for each cluster of them, and one that a device keeps.

    python benchmarks/conflict.py --seeds 0,1,2 --out runs/conflict

Half of the devices live in `orchard`, half in `mirror-orchard`: what wins in one loses in the other. The player
has no language model, but one set of weights of tactics for each word that a goal begins with, so that it can hold both
rules once a teacher shows it both. Tactics alone, which cannot tell the lands apart, are run beside it. Writes
results.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the policy lies in this file and in examples/

from examples.bag_of_words import Adapter, BagOfWords, WordLearner, WordPolicy
from fedoel.codecs.tactics.coordinates import DIMENSION, cells
from fedoel.policies.policy import Policy
from fedoel.protocol.config import PolicyConfig, RunConfig, Scalar
from fedoel.protocol.experience import Vector
from fedoel.protocol.records.json_codec import to_stored
from fedoel.protocol.records.summary import CycleRecord, Stats, Summary
from fedoel.protocol.situation import Situation
from fedoel.server.summary import read_summary
from fedoel.simulations.experiment_table import rates, spread
from fedoel.simulations.held_out import Extra, measure_personal
from fedoel.simulations.inprocess import run_inprocess

SLOTS = 8
COLUMNS = ("arm", "start", "teacher of cycle 1", "end", "orchard", "mirror-orchard", "end, with own contexts")
SETTINGS: Mapping[str, Scalar] = {
    "clients": 12, "cycles": 3, "games.families": "orchard turns=6; mirror-orchard turns=6", "games.per-client": 8,
    "games.partition": "by-family", "games.rehearsal": 48, "games.gate": 64, "games.held-out": 200,
    "server.public": "games",
}  # fmt: skip
ARMS: Mapping[str, Mapping[str, Scalar]] = {
    "mean": {"strategy.name": "mean"},
    "clustered": {"strategy.name": "clustered", "strategy.options": "num-clusters=2"},
}
BACKENDS: Mapping[str, str] = {"reads the land": "benchmarks.conflict:Lands", "tactics only": "tactics"}


@dataclass(frozen=True, slots=True)
class Run:
    """The summary of a run, and what its devices gain by contexts of their own."""

    summary: Summary
    extras: Sequence[Extra]


def features(situation: Situation) -> Vector:
    """One-hot of every command's tactic, in the part of the land, shape ``(commands, SLOTS * DIMENSION)``."""
    found, land = np.zeros((len(situation.admissible), SLOTS * DIMENSION), np.float32), situation.goal.split()[0]
    found[np.arange(len(found)), zlib.crc32(land.encode()) % SLOTS * DIMENSION + cells(situation)] = 1
    return found


class LandLearner(WordLearner):
    """Learns what the teachers say, land by land."""

    base, cells, phi = f"lands {SLOTS}", SLOTS * DIMENSION, staticmethod(features)


class Lands(BagOfWords):
    """The backend."""

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        return WordPolicy(version, adapter["weights"], features)

    def learner(self, config: RunConfig, cache: Path) -> LandLearner:
        return LandLearner()


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", default="runs/conflict", type=Path)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    out, seeds = given.out.absolute(), [int(seed) for seed in given.seeds.split(",")]
    results = {
        f"{arm}, {player}": [conflict(arm, backend, seed, out) for seed in seeds]
        for player, backend in BACKENDS.items()
        for arm in ARMS
    }
    stored = {
        arm: [{**to_stored(run.summary), "personal": [asdict(extra) for extra in run.extras]} for run in runs]
        for arm, runs in results.items()
    }
    (out / "results.json").write_text(json.dumps(stored, indent=1))
    (out / "table.md").write_text(table(results))
    print(table(results))


def conflict(arm: str, backend: str, seed: int, out: Path) -> Run:
    """Run one arm with one player and seed, or what is missing of it."""
    folder = out / f"{arm}-{backend.rpartition(':')[2]}-{seed}"
    own: Mapping[str, Scalar] = {
        "policy.backend": backend, "seed": seed, "out": str(folder), "cache": str(out / "cache")
    }  # fmt: skip
    config = RunConfig.from_flat({**SETTINGS, **ARMS[arm], **own})
    run_inprocess(config)  # goes on where it stopped
    summary = read_summary(folder)
    return Run(summary, measure_personal(config, folder / "versions" / summary.cycles[-1].version))


def table(results: Mapping[str, Sequence[Run]]) -> str:
    """Held-out wins at the start, of the first cycle's teacher, and at the end, in all games and in each land."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for arm, runs in results.items():
        cycles = [run.summary.cycles for run in runs]
        ends = [records[-1] for records in cycles]
        parts = [
            rates([records[0].held_out for records in cycles]),
            rates([_teacher(records[1]) for records in cycles]),
        ]
        parts += [f"**{rates([end.held_out for end in ends])}**"]
        parts += [rates([end.families[land] for end in ends]) for land in ("orchard", "mirror-orchard")]
        parts += [spread([_personal(run) for run in runs], "{:.0f}", " %")]
        lines.append(f"| {arm} | " + " | ".join(parts) + " |")
    return "\n".join(lines) + "\n"


def _personal(run: Run) -> float:
    """Percent of held-out games that devices win on their own land, each with its own context on the last version."""
    return 100 * fmean(extra.personal for extra in run.extras)


def _teacher(record: CycleRecord) -> Stats:
    """Return the teacher's results, or the version's own where there was no context."""
    return record.teacher or record.held_out


if __name__ == "__main__":
    main()
