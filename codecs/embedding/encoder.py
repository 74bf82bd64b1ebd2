"""The device half of the codec `embedding`: the policy gradient of a linear reward head over the model's hidden states.

    g = sum_t A_t (phi(x_t, a_t) - E_pi phi(x_t, .))        F = sum_t Var_pi phi(x_t, .)

with phi as in `fedoel.codecs.embedding.whitening`. g is the exact policy gradient of the tilted policy at the context
that was played, and F the exact expectation of its squared score function. Hidden states come from the layers that the
model runs for its scores: there is no backward pass, and no further forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import EMBEDDING
from ...policies.policy import Policy
from ...protocol.errors import VectorError
from ...protocol.experience import Floats, Vector
from ...protocol.play import Turn
from ..log_linear import gradient_and_fisher
from .policy import RewardTiltedPolicy
from .whitening import Whitening

DIMENSION = 64
MATRIX = "whitening"  # name of the codec's only public parameter


@dataclass(frozen=True, slots=True)
class EmbeddingEncoder:
    """Weights of a linear reward head; `whitening` is None until the server has computed it."""

    name: str = "embedding"
    dimension: int = DIMENSION
    whitening: Whitening | None = None
    server: ClassVar[str] = "fedoel.codecs.embedding.codec:EmbeddingCodec"
    required_abilities: ClassVar[frozenset[str]] = frozenset({EMBEDDING})
    is_additive: ClassVar[bool] = True

    @property
    def vocabulary(self) -> str:
        """Hash of the number of coordinates and of the whitening matrix."""
        matrix = self.whitening.digest if self.whitening else "not computed yet"
        return hashlib.sha256(repr((self.dimension, matrix, "embedding", 2)).encode()).hexdigest()[:16]

    def with_parameters(self, parameters: Mapping[str, NDArray[Any]]) -> EmbeddingEncoder:
        """Return the encoder with the server's whitening matrix.

        Raises
        ------
        VectorError
            If the matrix is missing, or not one.
        """
        if set(parameters) != {MATRIX}:
            raise VectorError(f"the codec 'embedding' needs one parameter, {MATRIX!r}, not {sorted(parameters)}")
        return replace(self, whitening=Whitening(parameters[MATRIX], self.dimension))

    def apply_context(self, policy: Policy, context: Vector) -> RewardTiltedPolicy:
        """Tilt the policy; under a context of zeros it plays as before, and keeps the features of what it plays.

        Raises
        ------
        VectorError
            If there is no whitening matrix yet.
        """
        if self.whitening is None:
            raise VectorError("the codec 'embedding' has no whitening matrix: a request of the server brings it")
        return RewardTiltedPolicy(policy, self.whitening, context)

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum score functions, weighted by advantages, and variances."""
        return gradient_and_fisher(turns, self.turn_features(policy, turns), advantages, self.dimension)

    def turn_features(self, policy: Policy, turns: Sequence[Turn]) -> list[NDArray[np.float32]]:
        """Return phi of every turn's commands, shapes ``(A, dimension)``, which a policy under a context has kept."""
        if not isinstance(policy, RewardTiltedPolicy):
            policy = self.apply_context(policy, np.zeros(self.dimension, np.float32))
        return policy.features([turn.situation for turn in turns])
