"""The server half of the codec `embedding`: it computes the whitening matrix, and knows the teacher in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import embedding
from ...policies.policy import LogProbs, Policy
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..codec import ModelCodec
from ..context import TeacherContext
from ..log_linear import tilted, within_trust_region
from ..natural_step import natural_step
from .encoder import MATRIX, EmbeddingEncoder
from .whitening import Whitening

LESSONS = 24
SMALLEST_LESSON = 0.02  # change of a probability


@dataclass(frozen=True, slots=True)
class EmbeddingCodec(ModelCodec):
    """Evaluates the model for features only, which its policy keeps for the turns that it has played."""

    encoder: EmbeddingEncoder

    def parameters(self, policy: Policy, turns: Sequence[Turn]) -> Mapping[str, NDArray[Any]]:
        """Compute the whitening matrix from public turns; raises as `Whitening.fit` does."""
        situations = list(dict.fromkeys(turn.situation for turn in turns if len(turn.situation.choices) > 1))
        return {MATRIX: Whitening.fit(embedding(policy).embed(situations), self.encoder.dimension).matrix}

    def with_parameters(self, parameters: Mapping[str, NDArray[Any]]) -> EmbeddingCodec:
        """Return the codec with a whitening matrix."""
        return replace(self, encoder=self.encoder.with_parameters(parameters))

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step, shortened to the trust region by bisection."""
        full = natural_step(aggregate, config)
        offsets = [features @ full for features in self.encoder.features(policy, turns)]
        scale, kl = within_trust_region([turn.log_probs for turn in turns], offsets, config.max_kl)
        weights = (before.weights + scale * full).astype(np.float32)
        return TeacherContext(weights, before.fisher + aggregate.vector.fisher, kl)

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Tilt the log-probabilities that the turns hold."""
        offsets = self.score_offsets(policy, turns, context)
        return [tilted(turn.log_probs, added) for turn, added in zip(turns, offsets, strict=True)]

    def score_offsets(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Return w . phi of every turn's commands."""
        return [features @ context.weights for features in self.encoder.features(policy, turns)]

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return the answers to public prompts that become more or less likely, strongest first, before and after.

        One lesson is one command, with its mean probability over the prompts that list it. Its weight is the change,
        its support the number of these prompts.
        """
        before, after = dict[str, list[float]](), dict[str, list[float]]()
        for turn, log_probs in zip(turns, self.teacher_log_probs(policy, turns, context), strict=True):
            for command, p, q in zip(turn.situation.choices, turn.log_probs, log_probs, strict=True):
                before.setdefault(command, []).append(float(np.exp(p)))
                after.setdefault(command, []).append(float(np.exp(q)))
        means = {command: (np.mean(before[command]), np.mean(after[command])) for command in before}
        lessons = [
            Lesson(f"{command}: {p:.0%} -> {q:.0%}", float(q - p), float(len(before[command])))
            for command, (p, q) in means.items()
            if abs(q - p) >= SMALLEST_LESSON
        ]
        return sorted(lessons, key=lambda lesson: -abs(lesson.weight))[:LESSONS]
