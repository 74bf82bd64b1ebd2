"""What it gives that a cycle begins with what its student has left of the context, on the decisions of `tidy`.

    python benchmarks/residual.py --seeds 0,1,2

The fleet of `looked_up_fleet.py` in cycles of two exchanges. There is no distillation: a student is taken to absorb a
share of its teacher's context. Printed is the student's chance to put an unseen thing where it belongs after each
cycle, where cycles begin with nothing, with what is left of the context as it was before it was lengthened
(`context.residual`), and with what is left of the lengthened one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from fedoel.codecs.context import TeacherContext, divergence, longer, no_context
from fedoel.games.splits import Split
from fedoel.protocol.config import ContextConfig, PolicyConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec, clip
from fedoel.protocol.play import Turn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.looked_up_fleet import CLIPPING_NORM, COUNTS, LookedUpFleet, answered, played

CONFIG = ContextConfig(noise=0.2, damping=30, teacher_kl=1.2)
EXCHANGES = 2
STARTS = ("nothing", "what is left", "what is left, lengthened")


@dataclass(frozen=True)
class Cycles:
    """Cycles of a fleet whose student absorbs a share of each teacher's context."""

    fleet: LookedUpFleet
    devices: int
    decisions: int
    multiplier: float
    absorbed: float

    def chances(self, start: str, cycles: int, seed: int) -> list[float]:
        """Return the student's chance of a right command after each cycle."""
        rng, dimension = np.random.default_rng(seed), self.fleet.codec.encoder.dimension
        student, context, found = np.zeros(dimension, np.float32), no_context(dimension), list[float]()
        for _ in range(cycles):
            for _ in range(EXCHANGES):
                context = self.stepped(student, context, rng)
            teacher = self.lengthened(student, context)
            student = (student + self.absorbed * teacher.weights).astype(np.float32)
            found.append(self.fleet.chance(replace(teacher, weights=student)))
            left = {STARTS[0]: 0 * context.weights, STARTS[1]: context.weights, STARTS[2]: teacher.weights}[start]
            context = replace(context, weights=((1 - self.absorbed) * left).astype(np.float32))
        return found

    def turns(self, student: Vector, weights: Vector, split: Split) -> list[Turn]:
        """Return all decisions of a split with a student's probabilities under a context."""
        policy = self.fleet.codec.encoder.apply_context(self.fleet.policy, (student + weights).astype(np.float32))
        return answered(policy.score, self.fleet.turns[split])

    def stepped(self, student: Vector, context: TeacherContext, rng: np.random.Generator) -> TeacherContext:
        """Play an exchange under a context, and take the step that follows."""
        encoder = self.fleet.codec.encoder
        public, private = (self.turns(student, context.weights, split) for split in (Split.REHEARSAL, Split.PRIVATE))
        baseline, gradient = fmean(float(np.exp(t.log_probs[t.action])) for t in public), np.zeros(encoder.dimension)
        for _ in range(self.devices):
            mine = [private[index] for index in rng.integers(COUNTS[Split.PRIVATE], size=self.decisions)]
            part, _ = encoder.gradient_and_fisher(self.fleet.policy, *played(mine, baseline, rng))
            gradient += clip(part, CLIPPING_NORM) if self.multiplier else part
        deviation = self.multiplier * CLIPPING_NORM
        gradient += rng.normal(0, deviation, encoder.dimension)
        _, fisher = encoder.gradient_and_fisher(self.fleet.policy, public, np.zeros(len(public)))
        fisher *= self.devices * self.decisions / len(public)
        spec = VectorSpec("embedding", encoder.dimension, encoder.vocabulary, "v", ("tidy",), 6, CLIPPING_NORM, 1e9)
        vector = ExperienceVector.from_parts(spec, {"gradient": gradient, "fisher": fisher})
        aggregate = Aggregate(vector, self.devices, deviation**2)
        return self.fleet.codec.step(aggregate, self.fleet.policy, public, CONFIG, context)

    def lengthened(self, student: Vector, context: TeacherContext) -> TeacherContext:
        """Return the teacher's context, measured from the student."""
        bare = self.turns(student, np.zeros_like(student), Split.REHEARSAL)

        def measured(tried: TeacherContext) -> TeacherContext:
            answers = self.fleet.codec.teacher_log_probs(self.fleet.policy, bare, tried)
            return replace(tried, kl=divergence(answers, bare))

        context = measured(context)
        return longer(context, CONFIG.teacher_kl, measured) if context.kl < CONFIG.teacher_kl else context


def main() -> None:
    """Print a row for each setting: means over the seeds, and the standard error behind the last cycle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cycles", type=int, default=4)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    fleet = LookedUpFleet.of(PolicyConfig(threads=1, lora_layers=14))
    for absorbed, (devices, decisions, noise), start in product((0.4, 0.7), ((8, 16, 0.0), (100, 6, 1.29)), STARTS):
        cycles = Cycles(fleet, devices, decisions, noise, absorbed)
        runs = [cycles.chances(start, arguments.cycles, seed) for seed in seeds]
        means = " -> ".join(f"{100 * fmean(each):.1f}" for each in zip(*runs, strict=True))
        error = 100 * stdev(run[-1] for run in runs) / len(runs) ** 0.5
        print(
            f"absorbs {absorbed:.0%}, noise multiplier {noise:g}, begins with {start}: {means} ({error:.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
