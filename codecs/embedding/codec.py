"""The server half of the codec `embedding`: it computes the whitening matrix, and knows the teacher in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import embedding
from ...policies.policy import Policy
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..context import TeacherContext
from ..log_linear_codec import LogLinearCodec
from .encoder import MATRIX, EmbeddingEncoder
from .whitening import Whitening

LESSONS = 24
SMALLEST_LESSON = 0.02  # change of a probability


@dataclass(frozen=True, slots=True)
class EmbeddingCodec(LogLinearCodec):
    """Computes the whitening matrix; its policy keeps the features of the turns that it has played."""

    encoder: EmbeddingEncoder

    def parameters(self, policy: Policy, turns: Sequence[Turn]) -> Mapping[str, NDArray[Any]]:
        """Compute the whitening matrix from public turns; raises as `Whitening.fit` does."""
        situations = list(dict.fromkeys(turn.situation for turn in turns if len(turn.situation.choices) > 1))
        return {MATRIX: Whitening.fit(embedding(policy).embed(situations), self.encoder.dimension).matrix}

    def with_parameters(self, parameters: Mapping[str, NDArray[Any]]) -> EmbeddingCodec:
        """Return the codec with a whitening matrix."""
        return replace(self, encoder=self.encoder.with_parameters(parameters))

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
