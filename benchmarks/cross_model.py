"""What the experience of a fleet with one model is worth to another model: contexts of `embedding`, carried over.

    python benchmarks/cross_model.py --other qwen2.5-coder-0.5b.gguf --seeds 0,1,2

Two fleets of `looked_up_fleet.py`, whose devices have the packaged model and another one. A server that holds public
prompts can carry a context w from the one to the other without a reward: with phi of the same alternatives by both
models, it finds v such that phi' v is as near as possible to phi w, by least squares. Both are whitened by the same
prompts, so that a ridge would only shorten v, which is lengthened afterwards as every teacher's context is.

Printed is the chance to put an unseen thing where it belongs, by a model under contexts of its own fleet after each
release, under the other fleet's last context, carried over, and under both together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from fedoel.codecs.context import TeacherContext
from fedoel.games.splits import Split
from fedoel.protocol.config import ContextConfig, PolicyConfig

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.looked_up_fleet import LookedUpFleet

CONFIG = ContextConfig(noise=0.2, damping=30, teacher_kl=1.2)


def carried(context: TeacherContext, giver: LookedUpFleet, taker: LookedUpFleet) -> TeacherContext:
    """Return the taker's context that adds to the scores of public prompts what the giver's context adds there."""
    weights = np.linalg.lstsq(features(taker), features(giver) @ context.weights.astype(np.float64))[0]
    return replace(context, weights=weights.astype(np.float32))


def features(fleet: LookedUpFleet) -> NDArray[np.float64]:
    """Return phi of all alternatives in public prompts, one below the other, shape ``(alternatives, dimension)``."""
    parts = fleet.codec.encoder.turn_features(fleet.policy, fleet.turns[Split.REHEARSAL])
    return np.concatenate(parts).astype(np.float64)


def together(fleet: LookedUpFleet, own: TeacherContext, other: TeacherContext) -> TeacherContext:
    """Return the sum of two contexts that lead equally far, as long as one of them."""
    return fleet.lengthened(replace(own, weights=(own.weights + other.weights) / np.float32(2)), CONFIG.teacher_kl)


def rows(fleets: dict[str, LookedUpFleet], seeds: Sequence[int]) -> list[str]:
    """Return one line for each model that takes, with means over seeds and their spread."""
    contexts = {name: [fleet.contexts(0.0, CONFIG, seed) for seed in seeds] for name, fleet in fleets.items()}
    lines = list[str]()
    for (giver, theirs), (taker, mine) in (tuple(fleets.items()), tuple(fleets.items())[::-1]):
        taken = [mine.lengthened(carried(run[-1], theirs, mine), CONFIG.teacher_kl) for run in contexts[giver]]
        both = [together(mine, run[1], other) for run, other in zip(contexts[taker], taken, strict=True)]
        own = " -> ".join(shown(mine, [run[n] for run in contexts[taker]]) for n in range(len(contexts[taker][0])))
        lines += [
            f"{taker}, own fleet, after each release: {own}",
            f"{taker}, from {giver}: {shown(mine, taken)}; with its own first release: {shown(mine, both)}",
        ]
    return lines


def shown(fleet: LookedUpFleet, contexts: Sequence[TeacherContext]) -> str:
    chances = [100 * fleet.chance(context) for context in contexts]
    return f"{fmean(chances):.0f} % ({min(chances):.0f}-{max(chances):.0f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, help="GGUF file or Hugging Face folder of another model")
    parser.add_argument("--other-layers", type=int, default=12, help="its layers with LoRA, above the hidden states")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    models = {
        "SmolLM2-135M": PolicyConfig(threads=1, lora_layers=14),
        Path(asked.other).stem: PolicyConfig(threads=1, base=asked.other, lora_layers=asked.other_layers),
    }
    found = {name: LookedUpFleet.of(model) for name, model in models.items()}
    print("\n".join(rows(found, [int(seed) for seed in asked.seeds.split(",")])))
