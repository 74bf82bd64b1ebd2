"""What a trial on devices promotes and refuses: planted good and bad candidates, with noise and with liars.

    python benchmarks/trials.py --seeds 9000,9001,9002 --out runs/trials

Policies are tables of tactics without a language model. Federations of these seeds learn contexts; a good candidate is
a version with a share of its context that wins at least 5 points more of 1,000 held-out games, a bad one has the
context with the sign turned round or shuffled weights and wins at least 5 points less. Every candidate is tried by
devices as `fedoel.client.trial` does it, summed in the clear, with the noise of epsilon 2 (three cycles of one exchange
and one trial, 1,000 devices of which 100 are drawn), and with a fifth of liars. Writes results.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the games lie beside this file, and under examples/

from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.player import play_episodes
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec, total
from fedoel.protocol.play import GameId, Trajectory
from fedoel.protocol.secagg.masks import cell_type
from fedoel.protocol.trials import answer_of
from fedoel.server.cycle.phases import load_phase
from fedoel.server.fleet_gate import FleetGate
from fedoel.server.registry import load_adapter
from fedoel.server.run_plan import RunPlan
from fedoel.server.safeguards import RunSafeguards
from fedoel.server.summary import read_summary
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.robust import TrimmedMean

SETTINGS: Mapping[str, Scalar] = {
    "clients": 24, "cycles": 3, "policy.backend": "tactics", "games.per-client": 4,
    "games.families": "examples.errand:ERRAND rooms=4 turns=8; benchmarks.vault:VAULT rooms=3 turns=8",
    "games.rehearsal": 48, "games.gate": 64, "games.held-out": 100, "games.held-out-teacher": 1,
    "server.public": "games",
}  # fmt: skip
PRIVATE: Mapping[str, Scalar] = {
    **SETTINGS, "clients": 1000, "strategy.name": "central-mean", "strategy.fraction-train": 0.1,
    "privacy.mechanism": "central", "privacy.epsilon": 2.0, "server.public": "prompts", "trial.contexts": False,
    "trial.share": 1.0,
}  # fmt: skip
SHARES = (1.0, 0.5, 0.25, -1.0, -0.5, -0.25)  # of a context; below zero it leads the other way
POINTS = 0.05  # a candidate that gains or loses less is neither good nor bad
HELD_OUT, POOL = 1000, 600  # games that the truth is measured on; devices whose answers trials draw from
DRAWS, DRAWN = 40, 100  # trials of each candidate, and devices of a trial
LIARS = 0.2
WAYS = ("plain sum", "noise of epsilon 2", "plain sum, a fifth liars", "noise of epsilon 2, a fifth liars",
        "trimmed, a fifth liars")  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A candidate, its true gain in wins, and what each device of the pool answers: gradients, shape (POOL, D)."""

    name: str
    gain: float
    answers: NDArray[np.float32]


def play(weights: NDArray[np.float32], games: Sequence[GameId]) -> list[Trajectory]:
    """Play games, always with the same random streams."""
    return play_episodes(TacticsPolicy("candidate", weights), games, list(range(len(games))), Path("unused"))


def games_of(config: RunConfig, split: Split, count: int) -> list[GameId]:
    """Return games of a split, the families in turn; private games are those of one client after the other."""
    specs = [for_split(spec, split) for spec in RunPlan.of(config).specs]
    each = config.trial.games
    if split is Split.PRIVATE:
        return [(specs[i % len(specs)], game_seed(split, 9000 + i % each, i // each)) for i in range(count)]
    return [(specs[i % len(specs)], game_seed(split, 5000 + i)) for i in range(count)]


def answers_of(
    spec: VectorSpec, each: int, before: Sequence[Trajectory], after: Sequence[Trajectory]
) -> list[ExperienceVector]:
    """Return what devices answer, each of which plays `each` of the games."""
    devices = (slice(first, first + each) for first in range(0, len(before), each))
    return [answer_of(spec, before[device], after[device]) for device in devices]


def contexts_of(seed: int, out: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Run a federation, and return its versions before each cycle with the contexts that they got."""
    config = RunConfig.from_flat({**SETTINGS, "seed": seed, "out": str((out / f"run-{seed}").resolve())})
    if not (Path(config.out) / "summary.json").exists():
        run_inprocess(config)
    folder, pairs = Path(config.out), []
    for record in read_summary(folder).cycles[:-1]:
        weights = load_adapter(folder / "versions" / record.version)[1]["weights"].astype(np.float32)
        context = load_phase(folder, record.cycle + 1, "context").arrays["weights"]
        pairs.append((weights, context))
    return pairs


def candidates_of(seed: int, out: Path, gate: FleetGate) -> list[Candidate]:
    """Return planted candidates: shares of real contexts, and shuffled ones."""
    config, rng, found = gate.config, np.random.default_rng(seed), list[Candidate]()
    truth, pool = games_of(config, Split.HELD_OUT, HELD_OUT), games_of(config, Split.PRIVATE, POOL * config.trial.games)
    spec = gate.spec("before", "candidate")
    for cycle, (weights, context) in enumerate(contexts_of(seed, out), start=1):
        base, before = np.mean([t.won for t in play(weights, truth)]), play(weights, pool)
        planted = {f"{share:+g} of the context": share * context for share in SHARES}
        planted |= {f"shuffled {number}": rng.permutation(context) for number in range(2)}
        for name, step in planted.items():
            gain = float(np.mean([t.won for t in play(weights + step, truth)]) - base)
            if abs(gain) >= POINTS:
                vectors = answers_of(spec, config.trial.games, before, play(weights + step, pool))
                answers = np.stack([vector.gradient for vector in vectors])
                found.append(Candidate(f"seed {seed}, cycle {cycle}, {name}", gain, answers))
    return found


def promoted(candidate: Candidate, gate: FleetGate, way: str, seed: int) -> float:
    """Return in which share of its trials a candidate is promoted."""
    rng, spec, passed = np.random.default_rng([seed, len(way)]), gate.spec("before", "candidate"), 0
    for _ in range(DRAWS):
        chosen = candidate.answers[rng.choice(POOL, size=DRAWN, replace=False)].copy()
        if "liars" in way:  # they push a bad candidate and block a good one, as far as clipping lets them
            lie = np.zeros(spec.dimension)
            lie[0] = -np.sign(candidate.gain) * spec.clipping_norm
            chosen[: int(LIARS * DRAWN)] = lie
        vectors = [ExperienceVector.from_parts(spec, {"gradient": answer.astype(np.float64)}) for answer in chosen]
        passed += gate.candidate_holds(gate.differences(summed(vectors, gate, way))).passed
    return passed / DRAWS


def summed(vectors: Sequence[ExperienceVector], gate: FleetGate, way: str) -> Aggregate:
    """Add answers up as the way says."""
    spec = vectors[0].spec
    if "noise" in way:
        plan = RunSafeguards(gate.config).plan(spec)
        cells = np.sum([plan.quantised(vector.parts()) for vector in vectors], axis=0) + plan.noise()
        parts = plan.decode(cells.astype(cell_type(plan.bits)))
        return Aggregate(ExperienceVector.from_parts(spec, parts), len(vectors), plan.variance("gradient", 1))
    if "trimmed" in way:
        contributions = [Contribution(index, vector) for index, vector in enumerate(vectors)]
        return TrimmedMean.aggregate_trial(cast(TrimmedMean, None), contributions, 1)
    return Aggregate(total(vectors), len(vectors))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--games", default="2,4", help="games of a device in a trial, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("runs/trials"))
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    seeds, rows = [int(seed) for seed in arguments.seeds.split(",")], list[dict[str, object]]()
    for games in (int(number) for number in arguments.games.split(",")):
        config = RunConfig.from_flat({**PRIVATE, "trial.games": games})
        gate = FleetGate(config, RunPlan.of(config), {})
        candidates = [candidate for seed in seeds for candidate in candidates_of(seed, arguments.out, gate)]
        for way in WAYS:
            rates = {one.name: promoted(one, gate, way, games) for one in candidates}
            good = [1 - rates[one.name] for one in candidates if one.gain > 0]
            bad = [rates[one.name] for one in candidates if one.gain < 0]
            rows.append({"games": games, "way": way, "good": len(good), "good refused": float(np.mean(good)),
                         "bad": len(bad), "bad promoted": float(np.mean(bad)), "rates": rates,
                         "gains": {one.name: one.gain for one in candidates}})  # fmt: skip
            print(f"{games} games, {way}: of {len(good)} good {np.sum(good):.1f} refused, of {len(bad)} bad "
                  f"{np.sum(bad):.1f} promoted", flush=True)  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(rows, indent=1))
    lines = ["| games a device | sum | of 50 good refused | of 50 bad promoted |", "|---|---|---|---|"]
    lines += [f"| {r['games']} | {r['way']} | {50 * float(str(r['good refused'])):.1f} | "
              f"{50 * float(str(r['bad promoted'])):.1f} |" for r in rows]  # fmt: skip
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
