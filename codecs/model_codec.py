"""The server half of codecs whose contexts act inside the model: the model is evaluated under each context."""

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
from .context import Candidate, TeacherContext, divergence
from .encoder import Encoder
from .natural_step import natural_step
from .tactics.coordinates import DIMENSION
from .tactics.policy import TacticsPolicy
from .trust_region import largest_share

MEASURED_TURNS = 160  # the most on which the trust region is measured
WEAKER = 0.5  # of the longest step inside the trust region: about a quarter of its KL


@dataclass(frozen=True, slots=True)
class ModelCodec:
    """Measures the trust region, and computes the teacher, by evaluating the model under the context.

    Parameters
    ----------
    blocks
        Blocks of coordinates by name. Where there are any, the cycle's context is one block, at one of two strengths.
    radius
        Largest norm of a context.
    """

    encoder: Encoder
    blocks: Mapping[str, slice] = field(default_factory=dict)
    radius: float = math.inf

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step, shortened to the trust region by line search."""
        weights, kl = self._bounded(policy, turns, before.weights, natural_step(aggregate, config), config.max_kl)
        return TeacherContext(weights, before.fisher + aggregate.vector.fisher, kl)

    @property
    def has_candidates(self) -> bool:
        """Whether the coordinates come in blocks."""
        return bool(self.blocks)

    def candidates(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Candidate]:
        """Return each block alone, once up to the border of the trust region and once at half that length."""
        candidates: list[Candidate] = []
        for name, block in self.blocks.items():
            alone = np.zeros_like(context.weights)
            # The trust region shortened all blocks together: a single block may be longer.
            alone[block] = len(self.blocks) * context.weights[block]
            full, kl = self._bounded(policy, turns, np.zeros_like(alone), alone, config.max_kl)
            candidates.append(Candidate(replace(context, weights=full, kl=kl), f"{name}, strength 1"))
            half = (WEAKER * full).astype(full.dtype)
            kl = divergence(self._log_probs(policy, _measured(turns), half), _measured(turns))
            candidates.append(Candidate(replace(context, weights=half, kl=kl), f"{name}, strength {WEAKER:g}"))
        return candidates

    def _bounded(
        self, policy: Policy, turns: Sequence[Turn], before: Vector, step: Vector, max_kl: float
    ) -> tuple[Vector, float]:
        """Add the largest share of a step that stays in the trust region; also return its KL."""
        measured = _measured(turns)

        def weights_at(share: float) -> Vector:
            return clip((before + share * step).astype(before.dtype), self.radius)

        def kl_at(share: float) -> float:
            return divergence(self._log_probs(policy, measured, weights_at(share)), measured)

        share, kl = largest_share(kl_at, max_kl)
        return weights_at(share), kl

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Apply the context to the policy."""
        return self.encoder.apply_context(policy, context.weights)

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Evaluate the policy under the context."""
        return self._log_probs(policy, turns, context.weights)

    def score_offsets(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """Return the log-probabilities of a uniform policy under an additive context: the offsets up to a constant."""
        if not self.encoder.is_additive:
            return None
        uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))
        return self._log_probs(uniform, turns, context.weights)

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """Return none: these coordinates have no names."""
        return []

    def _log_probs(self, policy: Policy, turns: Sequence[Turn], weights: Vector) -> list[LogProbs]:
        return self.encoder.apply_context(policy, weights).score([turn.situation for turn in turns])


def _measured(turns: Sequence[Turn]) -> Sequence[Turn]:
    return turns[:: math.ceil(len(turns) / MEASURED_TURNS)]
