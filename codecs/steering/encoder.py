"""The device's half of the steering codec: what would steer towards good commands, against the others.

    g = sum_t A_t (c(x_t, a_t) - E_pi c(x_t, .))        F = sum_t Var_pi c(x_t, .)

with c a command's contrast with its rivals where the head reads them (`fedoel.policies.torch.readout`), in public
random subspaces: chosen against rejected commands, weighted by the advantage (contrastive activation addition, arXiv
2312.06681, with a policy's own choices). It takes forward passes only, and behind the last layer it is the exact policy
gradient. Differences of the commands' own hidden states, the usual form, are nearly at right angles to that gradient.
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
    """Coordinates of control vectors, one block for each layer at which one may be added."""

    name: str = "steering"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    needs: frozenset[str] = frozenset({RESIDUAL})
    adds: bool = False
    server: str = "fedoel.codecs.steering.codec:steering_codec"

    def under(self, policy: Policy, context: Vector) -> Policy:
        """Add the control vectors.

        Raises
        ------
        ConfigError
            If the policy has no residual stream.
        """
        return steered(policy, ControlVector(SPACE, context))

    def sums(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Compare what was chosen with what else there was."""
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        found = cast(Steered, policy).features([turn.situation for turn in turns])
        for turn, features, advantage in zip(turns, found, advantages, strict=True):
            probs = np.exp(turn.log_probs.astype(np.float64))
            mean = probs @ features
            gradient += advantage * (features[turn.action] - mean)
            fisher += probs @ (features - mean) ** 2
        return gradient, fisher
