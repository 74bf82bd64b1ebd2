"""What privacy noise costs the codec `embedding`, on the decisions of `tidy` with held-out nouns.

    python benchmarks/private_embedding.py --seeds 0,1,2

The fleet of `looked_up_fleet.py`; epsilon 2 at delta 1e-6 for all releases together, by the accounting that runs.
Printed is the teacher's chance to put an unseen thing where it belongs, after each release, with noise and without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from fedoel.protocol.config import ContextConfig, PolicyConfig
from fedoel.server.accounting import multiplier_for

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.looked_up_fleet import COHORT, DEVICES, RELEASES, LookedUpFleet

EPSILON, DELTA = 2.0, 1e-6


def main(seeds: Sequence[int], dampings: Sequence[float], teacher_kls: Sequence[float]) -> None:
    """Compute hidden states once, and print one line for each setting, seed and mechanism."""
    fleet = LookedUpFleet.of(PolicyConfig(threads=1, lora_layers=14))
    noisy = multiplier_for(EPSILON, DELTA, COHORT, DEVICES, RELEASES)
    for damping, teacher_kl in product(dampings, teacher_kls):
        kept, config = list[float](), ContextConfig(noise=0.2, damping=damping, teacher_kl=teacher_kl)
        for seed in seeds:
            free, private = (
                [fleet.chance(context) for context in fleet.contexts(multiplier, config, seed)]
                for multiplier in (0.0, noisy)
            )
            kept.append((private[-1] - private[0]) / (free[-1] - free[0]))
            for name, chances in ((f"epsilon {EPSILON:g}", private), ("no noise", free)):
                percents = " -> ".join(f"{100 * c:.0f}" for c in chances)
                print(f"damping {damping:g}, KL {teacher_kl:g}, seed {seed}, {name}: {percents} %")
        print(f"noise multiplier {noisy:.2f}; share of the gain that is left: " + ", ".join(f"{k:.0%}" for k in kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--dampings", default="30", help="values of context.damping; the scenario words has 30")
    parser.add_argument("--teacher-kls", default="1.2", help="values of context.teacher-kl; the scenario words has 1.2")
    asked = parser.parse_args()
    seeds, dampings, kls = asked.seeds.split(","), asked.dampings.split(","), asked.teacher_kls.split(",")
    main([int(seed) for seed in seeds], [float(damping) for damping in dampings], [float(kl) for kl in kls])
