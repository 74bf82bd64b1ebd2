"""The server's half of the tactics codec: the teacher is the policy, tilted by the weights or advised in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...client.encoders.tactics import TacticsEncoder
from ...client.policy.policy import LogProbs, Policy
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate, Vector
from ...protocol.play import Turn
from ...protocol.tactics import cells, tactic_name, tilt
from .context import Choice, Context, Lesson, natural_step

HALVINGS = 24
SMALLEST_LESSON = 0.05
LARGEST_WEIGHT = 6.0  # a command made 400 times as likely, or as unlikely: beyond that only rounding changes


@dataclass(frozen=True, slots=True)
class TacticsCodec:
    """Needs no model: what a turn's commands are worth under a tilt follows from what the player said of them.

    Where the context is spoken, the tilt decides what is said; what the teacher then says, only the model knows.
    """

    encoder: TacticsEncoder

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: Context
    ) -> Context:
        """Take the natural gradient step and shorten it to the trust region by bisection."""
        full = natural_step(aggregate, config)
        full = np.clip(before.weights + full, -LARGEST_WEIGHT, LARGEST_WEIGHT) - before.weights
        scorer = _Divergence(turns, full.astype(np.float32))
        low, high = 0.0, 1.0
        if scorer.mean_kl(1.0) > config.max_kl:
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if scorer.mean_kl(middle) <= config.max_kl else (low, middle)
            scale = low
        else:
            scale = 1.0
        weights = (before.weights + scale * full).astype(np.float32)
        return Context(weights, before.support + aggregate.vector.fisher, scorer.mean_kl(scale))

    @property
    def chooses(self) -> bool:
        """Whether there is a choice: no."""
        return False

    def choices(self, policy: Policy, turns: Sequence[Turn], context: Context, config: ContextConfig) -> list[Choice]:
        """Have none."""
        return []

    def teacher(self, policy: Policy, context: Context) -> Policy:
        """Tilt or advise the policy."""
        return self.encoder.under(policy, context.weights)

    def answers(self, policy: Policy, turns: Sequence[Turn], context: Context) -> list[LogProbs]:
        """Tilt what the policy said when it played, or ask it with the advice in its prompt."""
        if self.encoder.spoken:
            return self.teacher(policy, context).score([turn.situation for turn in turns])
        return [tilt(turn.log_probs, turn.situation, context.weights) for turn in turns]

    def tilts(self, turns: Sequence[Turn], context: Context) -> list[LogProbs] | None:
        """The weights of the commands' tactics, unless they are spoken."""
        return None if self.encoder.spoken else [context.weights[cells(turn.situation)] for turn in turns]

    def lessons(self, context: Context) -> list[Lesson]:
        """Name the tactics whose weights matter, strongest first."""
        order = np.argsort(-np.abs(context.weights))
        return [
            Lesson(tactic_name(int(i)), float(context.weights[i]), float(context.support[i]))
            for i in order
            if abs(context.weights[i]) >= SMALLEST_LESSON
        ]


class _Divergence:
    """KL(teacher || player) as a function of the step's scale, with the tilts computed once."""

    def __init__(self, turns: Sequence[Turn], full: Vector) -> None:
        self._log_probs = [turn.log_probs.astype(np.float64) for turn in turns]
        self._tilts = [full.astype(np.float64)[cells(turn.situation)] for turn in turns]

    def mean_kl(self, scale: float) -> float:
        return float(np.mean([_kl(p, scale * t) for p, t in zip(self._log_probs, self._tilts, strict=True)]))


def _kl(log_probs: NDArray[np.float64], tilts: NDArray[np.float64]) -> float:
    scores = log_probs + tilts
    top = scores.max()
    log_normaliser = top + np.log(np.exp(scores - top).sum())
    tilted = np.exp(scores - log_normaliser)
    return float((tilted * (tilts - log_normaliser)).sum())
