"""The server half of the tactics codec: the teacher is the policy, tilted by the weights or advised in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.policy import LogProbs, Policy
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..codec import ModelCodec
from ..context import TeacherContext, weights_as_lessons
from ..natural_step import natural_step
from .coordinates import DIMENSION, cells, tactic_name, tilt
from .encoder import TacticsEncoder
from .policy import LARGEST_WEIGHT, within_trust_region


@dataclass(frozen=True, slots=True)
class TacticsCodec(ModelCodec):
    """Computes tilts from the log-probabilities that turns hold, without a model.

    Where the context is advice in the prompt, the step is that of the tilt, and the model is evaluated for the teacher.
    """

    encoder: TacticsEncoder

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step, shortened to the trust region by bisection."""
        full = natural_step(aggregate, config)
        full = np.clip(before.weights + full, -LARGEST_WEIGHT, LARGEST_WEIGHT) - before.weights
        scale, kl = within_trust_region(turns, full.astype(np.float32), config.max_kl)
        weights = (before.weights + scale * full).astype(np.float32)
        return TeacherContext(weights, before.fisher + aggregate.vector.fisher, kl)

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Tilt the log-probabilities that the turns hold, or evaluate the policy with the advice in its prompt."""
        if self.encoder.spoken:
            return ModelCodec.teacher_log_probs(self, policy, turns, context)
        return [tilt(turn.log_probs, turn.situation, context.weights) for turn in turns]

    def score_offsets(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """Return the weights of the commands' tactics; None where they are advice in the prompt."""
        return None if self.encoder.spoken else [context.weights[cells(turn.situation)] for turn in turns]

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return the tactics that have weight, strongest first."""
        return weights_as_lessons(context, [tactic_name(cell) for cell in range(DIMENSION)])
