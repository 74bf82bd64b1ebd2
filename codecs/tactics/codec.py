"""The server's half of the tactics codec: the teacher is the policy, tilted by the weights or advised in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.policy import LogProbs, Policy
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..context import Choice, TeacherContext
from ..natural_step import natural_step
from .coordinates import cells, tactic_name, tilt
from .encoder import TacticsEncoder
from .step import LARGEST_WEIGHT, within_trust_region

SMALLEST_LESSON = 0.05


@dataclass(frozen=True, slots=True)
class TacticsCodec:
    """Needs no model: what a turn's commands are worth under a tilt follows from what the player said of them.

    Where the context is spoken, the tilt decides what is said; what the teacher then says, only the model knows.
    """

    encoder: TacticsEncoder

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step and shorten it to the trust region by bisection."""
        full = natural_step(aggregate, config)
        full = np.clip(before.weights + full, -LARGEST_WEIGHT, LARGEST_WEIGHT) - before.weights
        scale, kl = within_trust_region(turns, full.astype(np.float32), config.max_kl)
        weights = (before.weights + scale * full).astype(np.float32)
        return TeacherContext(weights, before.support + aggregate.vector.fisher, kl)

    @property
    def chooses(self) -> bool:
        """Whether there is a choice: no."""
        return False

    def choices(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Choice]:
        """Have none."""
        return []

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Tilt or advise the policy."""
        return self.encoder.under(policy, context.weights)

    def answers(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Tilt what the policy said when it played, or ask it with the advice in its prompt."""
        if self.encoder.spoken:
            return self.teacher(policy, context).score([turn.situation for turn in turns])
        return [tilt(turn.log_probs, turn.situation, context.weights) for turn in turns]

    def tilts(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """The weights of the commands' tactics, unless they are spoken."""
        return None if self.encoder.spoken else [context.weights[cells(turn.situation)] for turn in turns]

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """Name the tactics whose weights matter, strongest first."""
        order = np.argsort(-np.abs(context.weights))
        return [
            Lesson(tactic_name(int(i)), float(context.weights[i]), float(context.support[i]))
            for i in order
            if abs(context.weights[i]) >= SMALLEST_LESSON
        ]
