"""Policies tilted by the weights of the tactics: any policy under a context, and the one without a language model.

The latter is uniform over the admissible commands but for the tilt: pi(a | x) = exp(w[tactic(x, a)]) / Z(x). It is a
baseline in every table, and lets tests of everything but the model run in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...policies.policy import LogProbs, Policy
from ...protocol.config import PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.experience import Vector
from ...protocol.play import Turn
from ...protocol.situation import Situation
from .. import log_linear
from .coordinates import DIMENSION, cells, tilt

LARGEST_WEIGHT = 6.0  # makes a command exp(6) = 400 times as likely: beyond that only rounding changes


@dataclass(frozen=True, slots=True, eq=False)
class TiltedPolicy:
    """A policy under a context, the teacher: pi(a | x) exp(w[tactic(x, a)]) / Z(x); with w = 0 it equals pi."""

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


@dataclass(frozen=True, slots=True, eq=False)
class TacticsPolicy:
    """The uniform policy, tilted by the weights of the tactics.

    Parameters
    ----------
    version
        The policy version that the weights belong to.
    weights
        The tilt w, shape ``(DIMENSION,)``; zeros give the uniform policy.
    """

    version: str
    weights: Vector
    abilities: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_adapter(cls, adapter: Mapping[str, NDArray[Any]], version: str) -> TacticsPolicy:
        """Read the weights from ``adapter["weights"]``.

        Raises
        ------
        ModelError
            If they are missing, or their shape is not that of this vocabulary.
        """
        weights = adapter.get("weights")
        if weights is None or weights.shape != (DIMENSION,):
            shape = "nothing" if weights is None else f"shape {weights.shape}"
            raise ModelError(f"a tactics adapter holds 'weights' of shape ({DIMENSION},), but here is {shape}")
        return cls(version, weights.astype(np.float32))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Return zeros: without a language model there are no prompt tokens."""
        return [0] * len(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return [tilt(_uniform(len(s.admissible)), s, self.weights) for s in situations]


def uniform_policy() -> TacticsPolicy:
    """Return the policy that plays uniformly over the admissible commands."""
    return TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))


class TacticsBackend:
    """Loads `TacticsPolicy`: no language model."""

    abilities: frozenset[str] = frozenset()

    def load(self, config: PolicyConfig, adapter: Mapping[str, NDArray[Any]], version: str, cache: Path) -> Policy:
        """Load the weights from the adapter."""
        return TacticsPolicy.from_adapter(adapter, version)


def _uniform(count: int) -> LogProbs:
    return np.full(count, -np.log(count), dtype=np.float32)


def within_trust_region(turns: Sequence[Turn], full: Vector, max_kl: float) -> tuple[float, float]:
    """Return the largest scale of a step whose mean KL over turns stays within a bound, and that KL in nats."""
    offsets = [full[cells(turn.situation)] for turn in turns]
    return log_linear.within_trust_region([turn.log_probs for turn in turns], offsets, max_kl)
