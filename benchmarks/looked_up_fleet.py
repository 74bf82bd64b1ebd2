"""A fleet on the decisions of `tidy`, whose hidden states are computed once and looked up: it fits into minutes.

A thousand devices, of which each release asks a tenth. Everything but the model is the code that runs: whitening,
encoder, clipping, natural step, trust region, lengthening. A device's policy is uniform under the context, as after the
warm start. Held-out decisions are about things that nobody has played with; there is no distillation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Self

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
from fedoel.protocol.experience import Aggregate, ExperienceVector, Floats, VectorSpec, clip
from fedoel.protocol.host.cache import default_cache
from fedoel.protocol.play import GameSpec, Turn
from fedoel.protocol.situation import Situation
from fedoel.simulations.conformance.checks import EmbeddedPolicy

GAMES = GameSpec.parse("tidy things=1 final=1 turns=6")
DEVICES, COHORT, DECISIONS, RELEASES, CLIPPING_NORM = 1000, 100, 6, 4, 2.0
COUNTS = {Split.PRIVATE: 1500, Split.REHEARSAL: 240, Split.HELD_OUT: 300}


def decisions(split: Split, count: int) -> list[Turn]:
    """Return the turns in which a thing is put somewhere; the command that was given is the right one."""
    spec = for_split(GAMES, split)
    return [play_walkthrough(spec, game_seed(split, n), default_cache()).turns[-1] for n in range(count)]


def answered(score: Callable[[Sequence[Situation]], list[LogProbs]], turns: Sequence[Turn]) -> list[Turn]:
    """Return turns with a policy's log-probabilities."""
    log_probs = score([turn.situation for turn in turns])
    return [Turn(t.situation, p, t.action, t.reward) for t, p in zip(turns, log_probs, strict=True)]


def played(turns: Sequence[Turn], baseline: float, rng: np.random.Generator) -> tuple[list[Turn], Floats]:
    """Return turns with sampled commands in the place of the right ones, and their advantages, shape (turns,)."""
    given = [replace(turn, action=sampled(np.exp(turn.log_probs), rng), reward=0.0) for turn in turns]
    return given, np.array([float(g.action == t.action) for g, t in zip(given, turns, strict=True)]) - baseline


@dataclass(frozen=True, slots=True)
class LookedUpFleet:
    """A fleet with one model: its codec, whitened by the public decisions, and all decisions."""

    codec: EmbeddingCodec
    policy: EmbeddedPolicy
    turns: dict[Split, list[Turn]]

    @classmethod
    def of(cls, model: PolicyConfig) -> Self:
        """Compute the hidden states of all situations."""
        turns = {split: decisions(split, count) for split, count in COUNTS.items()}
        situations = list(dict.fromkeys(turn.situation for some in turns.values() for turn in some))
        hidden = embedding(load_version(model, {}, "", default_cache())).embed(situations)
        policy = EmbeddedPolicy(uniform_policy(), dict(zip(situations, hidden, strict=True)).__getitem__)
        bare = load_codec("embedding")
        assert isinstance(bare, EmbeddingCodec)
        return cls(bare.with_parameters(bare.parameters(policy, turns[Split.REHEARSAL])), policy, turns)

    def contexts(self, multiplier: float, config: ContextConfig, seed: int) -> list[TeacherContext]:
        """Return the teacher's context at the start and after each release.

        Parameters
        ----------
        multiplier
            Noise multiplier of a release.
        """
        rng, encoder, public = np.random.default_rng(seed), self.codec.encoder, self.turns[Split.REHEARSAL]
        spec = VectorSpec(
            "embedding", encoder.dimension, encoder.vocabulary, "uniform", ("tidy",), 6, CLIPPING_NORM, 1e9
        )
        context = no_context(encoder.dimension)
        finished = [context]
        own = rng.integers(COUNTS[Split.PRIVATE], size=(DEVICES, DECISIONS))
        for _ in range(RELEASES):
            policy = encoder.apply_context(self.policy, context.weights)
            rehearsed = answered(policy.score, public)
            baseline = fmean(float(np.exp(turn.log_probs[turn.action])) for turn in rehearsed)
            gradient = np.zeros(encoder.dimension)
            for device in rng.choice(DEVICES, COHORT, replace=False):
                mine = answered(policy.score, [self.turns[Split.PRIVATE][index] for index in own[device]])
                part, _ = encoder.gradient_and_fisher(policy, *played(mine, baseline, rng))
                gradient += clip(part, CLIPPING_NORM)
            deviation = multiplier * CLIPPING_NORM
            gradient += rng.normal(0, deviation, encoder.dimension)
            _, fisher = encoder.gradient_and_fisher(policy, rehearsed, np.zeros(len(rehearsed)))
            fisher *= COHORT * DECISIONS / len(rehearsed)
            vector = ExperienceVector.from_parts(spec, {"gradient": gradient, "fisher": fisher})
            aggregate = Aggregate(vector, COHORT, deviation**2)
            context = self.codec.step(aggregate, self.policy, rehearsed, config, context)
            finished.append(self.lengthened(context, config.teacher_kl))
        return finished

    def lengthened(self, context: TeacherContext, target: float) -> TeacherContext:
        """Return a context as long as `context.teacher-kl` asks."""
        bare = answered(self.policy.score, self.turns[Split.REHEARSAL])

        def measured(tried: TeacherContext) -> TeacherContext:
            return replace(tried, kl=divergence(self.codec.teacher_log_probs(self.policy, bare, tried), bare))

        context = measured(context)
        return longer(context, target, measured) if context.kl < target else context

    def chance(self, context: TeacherContext) -> float:
        """Mean probability of the right command in held-out decisions."""
        held_out = answered(self.codec.teacher(self.policy, context).score, self.turns[Split.HELD_OUT])
        return fmean(float(np.exp(turn.log_probs[turn.action])) for turn in held_out)
