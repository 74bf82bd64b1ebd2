"""The server half of codecs that are log-linear in features of commands: step and teacher in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..policies.policy import LogProbs, Policy
from ..protocol.config import ContextConfig
from ..protocol.experience import Aggregate
from ..protocol.play import Turn
from .codec import ModelCodec
from .context import TeacherContext
from .encoder import Encoder
from .log_linear import tilted, within_trust_region
from .natural_step import natural_step


class LogLinearEncoder(Encoder, Protocol):
    """An encoder whose context adds w . phi(x, a) to scores."""

    def turn_features(self, policy: Policy, turns: Sequence[Turn]) -> list[NDArray[np.float32]]:
        """Return phi of every turn's commands, shapes ``(A, dimension)``."""


@dataclass(frozen=True, slots=True)
class LogLinearCodec(ModelCodec):
    """Asks its encoder for features, and evaluates no model under a context."""

    encoder: LogLinearEncoder

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step, shortened to the trust region by bisection."""
        full = natural_step(aggregate, config)
        offsets = [features @ full for features in self.encoder.turn_features(policy, turns)]
        scale, kl = within_trust_region([turn.log_probs for turn in turns], offsets, config.max_kl)
        weights = (before.weights + scale * full).astype(np.float32)
        return TeacherContext(weights, before.fisher + aggregate.vector.fisher, kl)

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Tilt the log-probabilities that the turns hold."""
        offsets = self.score_offsets(policy, turns, context)
        return [tilted(turn.log_probs, added) for turn, added in zip(turns, offsets, strict=True)]

    def score_offsets(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Return w . phi of every turn's commands."""
        return [features @ context.weights for features in self.encoder.turn_features(policy, turns)]
