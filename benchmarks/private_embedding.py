"""What privacy noise costs the codec `embedding`, on the decisions of `tidy` with held-out nouns.

    python benchmarks/private_embedding.py --seeds 0,1,2

A thousand devices, of which each release asks a tenth; epsilon 2 at delta 1e-6 for all releases together. Hidden states
of all situations are computed once and looked up, so that a fleet fits into minutes; everything else is the code that
runs: whitening, encoder, clipping, accounting, natural step and trust region. A device's policy is uniform under the
context, as after the warm start. There is no distillation: printed is the teacher's chance to put an unseen thing
where it belongs, after each release, with noise and without, under the context as long as `context.teacher-kl` asks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean

import numpy as np

from fedoel.codecs.codec import load_codec
from fedoel.codecs.context import TeacherContext, divergence, longer, no_context
from fedoel.codecs.embedding.codec import EmbeddingCodec
from fedoel.codecs.tactics.policy import uniform_policy
from fedoel.games.scripted import play_walkthrough
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.policies.abilities import embedding
from fedoel.policies.backend import load_version
from fedoel.policies.policy import LogProbs, sampled
from fedoel.protocol.config import ContextConfig, PolicyConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec, clip
from fedoel.protocol.host.cache import default_cache
from fedoel.protocol.play import GameSpec, Turn
from fedoel.protocol.situation import Situation
from fedoel.server.accounting import multiplier_for
from fedoel.simulations.conformance.checks import EmbeddedPolicy

GAMES = GameSpec.parse("tidy things=1 final=1 turns=6")
DEVICES, COHORT, DECISIONS, RELEASES = 1000, 100, 6, 4
EPSILON, DELTA, CLIPPING_NORM = 2.0, 1e-6, 2.0
PRIVATE, PUBLIC, HELD_OUT = 1500, 240, 300


def decisions(split: Split, count: int) -> list[Turn]:
    """Return the turns in which a thing is put somewhere; the command that was given is the right one."""
    spec = for_split(GAMES, split)
    return [play_walkthrough(spec, game_seed(split, n), default_cache()).turns[-1] for n in range(count)]


def experiment(
    codec: EmbeddingCodec,
    policy: EmbeddedPolicy,
    turns: dict[Split, list[Turn]],
    multiplier: float,
    config: ContextConfig,
    seed: int,
) -> list[float]:
    """Return the chance of the right place for held-out things, at the start and after each release."""
    rng, encoder = np.random.default_rng(seed), codec.encoder
    spec = VectorSpec("embedding", encoder.dimension, encoder.vocabulary, "uniform", ("tidy",), 6, CLIPPING_NORM, 1e9)
    context, chances = no_context(encoder.dimension), list[float]()
    bare = answered(policy.score, turns[Split.REHEARSAL])

    def measured(tried: TeacherContext) -> TeacherContext:
        return replace(tried, kl=divergence(codec.teacher_log_probs(policy, bare, tried), bare))

    own = rng.integers(PRIVATE, size=(DEVICES, DECISIONS))
    for _ in range(RELEASES + 1):
        finished = measured(context)
        if context.weights.any() and finished.kl < config.teacher_kl:
            finished = longer(finished, config.teacher_kl, measured)
        chances.append(chance(codec, policy, turns[Split.HELD_OUT], finished))
        played = encoder.apply_context(policy, context.weights)
        public = answered(played.score, turns[Split.REHEARSAL])
        baseline = fmean(float(np.exp(turn.log_probs[turn.action])) for turn in public)
        gradient = np.zeros(encoder.dimension)
        for device in rng.choice(DEVICES, COHORT, replace=False):
            mine = answered(played.score, [turns[Split.PRIVATE][index] for index in own[device]])
            given = [Turn(t.situation, t.log_probs, sampled(np.exp(t.log_probs), rng), 0.0) for t in mine]
            rewards = np.array([float(g.action == t.action) for g, t in zip(given, mine, strict=True)])
            part, _ = encoder.gradient_and_fisher(played, given, rewards - baseline)
            gradient += clip(part, CLIPPING_NORM)
        deviation = multiplier * CLIPPING_NORM
        gradient += rng.normal(0, deviation, encoder.dimension)
        _, fisher = encoder.gradient_and_fisher(played, public, np.zeros(len(public)))
        fisher *= COHORT * DECISIONS / len(public)
        vector = ExperienceVector.from_parts(spec, {"gradient": gradient, "fisher": fisher})
        context = codec.step(Aggregate(vector, COHORT, deviation**2), policy, public, config, context)
    return chances


def answered(score: Callable[[Sequence[Situation]], list[LogProbs]], turns: Sequence[Turn]) -> list[Turn]:
    """Return turns with a policy's log-probabilities."""
    log_probs = score([turn.situation for turn in turns])
    return [Turn(t.situation, p, t.action, t.reward) for t, p in zip(turns, log_probs, strict=True)]


def chance(codec: EmbeddingCodec, policy: EmbeddedPolicy, turns: Sequence[Turn], context: TeacherContext) -> float:
    """Mean probability of the right command under a context."""
    return fmean(float(np.exp(t.log_probs[t.action])) for t in answered(codec.teacher(policy, context).score, turns))


def main(seeds: Sequence[int], dampings: Sequence[float], teacher_kls: Sequence[float]) -> None:
    """Compute hidden states once, and print one line for each setting, seed and mechanism."""
    model = embedding(load_version(PolicyConfig(threads=1, lora_layers=14), {}, "", default_cache()))
    counts = {Split.PRIVATE: PRIVATE, Split.REHEARSAL: PUBLIC, Split.HELD_OUT: HELD_OUT}
    turns = {split: decisions(split, count) for split, count in counts.items()}
    situations = list(dict.fromkeys(turn.situation for some in turns.values() for turn in some))
    hidden = dict(zip(situations, model.embed(situations), strict=True))
    policy, bare = EmbeddedPolicy(uniform_policy(), hidden.__getitem__), load_codec("embedding")
    assert isinstance(bare, EmbeddingCodec)
    codec = bare.with_parameters(bare.parameters(policy, turns[Split.REHEARSAL]))
    noisy = multiplier_for(EPSILON, DELTA, COHORT, DEVICES, RELEASES)
    for damping, teacher_kl in product(dampings, teacher_kls):
        kept, config = list[float](), ContextConfig(noise=0.2, damping=damping, teacher_kl=teacher_kl)
        for seed in seeds:
            free, private = (experiment(codec, policy, turns, z, config, seed) for z in (0.0, noisy))
            kept.append((private[-1] - private[0]) / (free[-1] - free[0]))
            for name, chances in ((f"epsilon {EPSILON:g}", private), ("no noise", free)):
                percents = " -> ".join(f"{100 * c:.0f}" for c in chances)
                print(f"damping {damping:g}, KL {teacher_kl:g}, seed {seed}, {name}: {percents} %")
        print(f"noise multiplier {noisy:.2f}; share of the gain that is left: " + ", ".join(f"{k:.0%}" for k in kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--dampings", default="30", help="values of context.damping; the scenario words has 30")
    parser.add_argument("--teacher-kls", default="1.2", help="values of context.teacher-kl; the scenario words has 1.2")
    asked = parser.parse_args()
    seeds, dampings, kls = asked.seeds.split(","), asked.dampings.split(","), asked.teacher_kls.split(",")
    main([int(seed) for seed in seeds], [float(damping) for damping in dampings], [float(kl) for kl in kls])
