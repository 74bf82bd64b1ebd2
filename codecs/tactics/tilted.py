"""A policy under a context of the tactics codec: the teacher, and what devices play in later exchanges of a cycle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...policies.policy import LogProbs, Policy
from ...protocol.experience import Vector
from ...protocol.situation import Situation
from .coordinates import tilt


@dataclass(frozen=True, slots=True, eq=False)
class TiltedPolicy:
    """pi(a | x) exp(w[tactic(x, a)]) / Z(x); with w = 0 it equals pi."""

    policy: Policy
    weights: Vector
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return f"{self.policy.version}+context"

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        answers = zip(self.policy.score(situations), situations, strict=True)
        return [tilt(log_probs, situation, self.weights) for log_probs, situation in answers]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; this context adds none."""
        return self.policy.tokens(situations)
