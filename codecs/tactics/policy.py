"""A player without a language model: uniform play over the admissible commands, tilted by the tactics.

    pi(a | x) = exp(w[tactic(x, a)]) / Z(x)

It is the baseline in every table, and it lets everything around the model be tested in milliseconds.
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
from ...protocol.situation import Situation
from .coordinates import DIMENSION, tilt


@dataclass(frozen=True, slots=True, eq=False)
class TacticsPolicy:
    """Uniform play, tilted by the weights of the tactics.

    Parameters
    ----------
    version
        The policy version that the weights belong to.
    weights
        The tilt w, shape ``(DIMENSION,)``; zeros play uniformly.
    """

    version: str
    weights: NDArray[np.float32]
    abilities: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_adapter(cls, adapter: Mapping[str, NDArray[Any]], version: str) -> TacticsPolicy:
        """Take the tilt from ``adapter["weights"]``.

        Raises
        ------
        ModelError
            If there is no tilt for this vocabulary.
        """
        weights = adapter.get("weights")
        if weights is None or weights.shape != (DIMENSION,):
            shape = "nothing" if weights is None else f"shape {weights.shape}"
            raise ModelError(f"a tactics adapter holds 'weights' of shape ({DIMENSION},), but here is {shape}")
        return cls(version, weights.astype(np.float32))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """No situation costs a token."""
        return [0] * len(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return [tilt(_uniform(len(s.admissible)), s, self.weights) for s in situations]


class TacticsBackend:
    """Uniform play, tilted by tactics: no model."""

    abilities: frozenset[str] = frozenset()

    def load(self, config: PolicyConfig, adapter: Mapping[str, NDArray[Any]], version: str, cache: Path) -> Policy:
        """Take the tilt from the adapter."""
        return TacticsPolicy.from_adapter(adapter, version)


def _uniform(count: int) -> LogProbs:
    return np.full(count, -np.log(count), dtype=np.float32)
