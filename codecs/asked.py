"""The server's half of codecs whose contexts work inside the model: what the teacher says, only the model knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..policies.policy import LogProbs, Policy
from ..protocol.config import ContextConfig
from ..protocol.experience import Aggregate, Vector, clip
from ..protocol.play import Turn
from ..protocol.records.summary import Lesson
from .context import Choice, TeacherContext, divergence
from .encoder import Encoder
from .natural_step import natural_step
from .tactics.coordinates import DIMENSION
from .tactics.policy import TacticsPolicy
from .trust_region import longest

MEASURED_TURNS = 160
WEAKER = 0.5  # as a share of the longest step inside the trust region: a quarter of its KL


@dataclass(frozen=True, slots=True)
class AskedCodec:
    """Asks the model what a context does: the step ends where some public turns differ too much.

    Parameters
    ----------
    parts
        Coordinates that make a context of their own, by name: one of them is chosen, and how strong it is.
    radius
        Norm of the longest context.
    """

    encoder: Encoder
    parts: Mapping[str, slice] = field(default_factory=dict)
    radius: float = math.inf

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step as far as the trust region reaches."""
        weights, kl = self._within(policy, turns, before.weights, natural_step(aggregate, config), config.max_kl)
        return TeacherContext(weights, before.support + aggregate.vector.fisher, kl)

    @property
    def chooses(self) -> bool:
        """Whether there are parts."""
        return bool(self.parts)

    def choices(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Choice]:
        """Every part alone, once as far as the trust region goes, and once half of that."""
        found: list[Choice] = []
        for name, part in self.parts.items():
            alone = np.zeros_like(context.weights)
            # Together they were shortened: alone, each may go further.
            alone[part] = len(self.parts) * context.weights[part]
            full, kl = self._within(policy, turns, np.zeros_like(alone), alone, config.max_kl)
            found.append(Choice(replace(context, weights=full, kl=kl), f"{name}, strength 1"))
            half = (WEAKER * full).astype(full.dtype)
            kl = divergence(self._answers(policy, _some(turns), half), _some(turns))
            found.append(Choice(replace(context, weights=half, kl=kl), f"{name}, strength {WEAKER:g}"))
        return found

    def _within(
        self, policy: Policy, turns: Sequence[Turn], before: Vector, step: Vector, max_kl: float
    ) -> tuple[Vector, float]:
        """Go along a step as far as the trust region reaches."""
        some = _some(turns)

        def at(share: float) -> Vector:
            return clip((before + share * step).astype(before.dtype), self.radius)

        share, kl = longest(lambda share: divergence(self._answers(policy, some, at(share)), some), max_kl)
        return at(share), kl

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Give the policy the context."""
        return self.encoder.under(policy, context.weights)

    def answers(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Ask the policy with the context."""
        return self._answers(policy, turns, context.weights)

    def tilts(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """What a uniform policy says with the context is what it adds, up to a constant; None if it does more."""
        if not self.encoder.adds:
            return None
        uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))
        return self.encoder.under(uniform, context.weights).score([turn.situation for turn in turns])

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """Say nothing: these coordinates have no names."""
        return []

    def _answers(self, policy: Policy, turns: Sequence[Turn], weights: Vector) -> list[LogProbs]:
        return self.encoder.under(policy, weights).score([turn.situation for turn in turns])


def _some(turns: Sequence[Turn]) -> Sequence[Turn]:
    return turns[:: math.ceil(len(turns) / MEASURED_TURNS)]
