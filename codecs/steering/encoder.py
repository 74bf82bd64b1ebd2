"""The device half of the steering codec: contrastive activation directions, weighted by advantages.

    g = sum_t A_t (c(x_t, a_t) - E_pi c(x_t, .))        F = sum_t Var_pi c(x_t, .)

c(x, a) is the gradient of a's score with respect to the hidden states that the LM head reads
(`fedoel.policies.torch.readout`), in coordinates of public random subspaces. g contrasts the command that was given
with the alternatives, as contrastive activation addition does (arXiv 2312.06681). It needs forward passes only. For a
vector added behind the last layer it is the exact policy gradient; differences of the commands' own hidden states, the
usual form, are nearly orthogonal to that gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import RESIDUAL, Steered, steered
from ...policies.policy import Policy
from ...policies.spaces import ControlVector
from ...protocol.experience import Vector
from ...protocol.play import Turn
from .coordinates import DIMENSION, SPACE, VOCABULARY

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteeringEncoder:
    """Coordinates of control vectors, one block per layer at which one may be added."""

    name: str = "steering"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    required_abilities: frozenset[str] = frozenset({RESIDUAL})
    is_additive: bool = False
    server: str = "fedoel.codecs.steering.codec:steering_codec"

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Add the control vectors.

        Raises
        ------
        ConfigError
            If the policy has no residual stream.
        """
        return steered(policy, ControlVector(SPACE, context))

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum the feature of the given command minus the mean, weighted by advantages, and the variances."""
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        features_per_turn = cast(Steered, policy).features([turn.situation for turn in turns])
        for turn, features, advantage in zip(turns, features_per_turn, advantages, strict=True):
            probs = np.exp(turn.log_probs.astype(np.float64))
            mean = probs @ features
            gradient += advantage * (features[turn.action] - mean)
            fisher += probs @ (features - mean) ** 2
        return gradient, fisher
