"""The device's half of the steering codec: what good commands look like inside the model, against the others.

    g = sum_t A_t (h(x_t, a_t) - E_pi h(x_t, .))        F = sum_t Var_pi h(x_t, .)

with h the unit hidden state at one layer where a command ends, in a public random subspace: chosen against rejected
commands, weighted by the advantage (contrastive activation addition, arXiv 2312.06681, with a policy's own choices). It
takes forward passes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...protocol.experience import Vector
from ...protocol.play import Turn
from ...protocol.steering import DIMENSION, VOCABULARY
from ..policy.policy import Policy
from .abilities import RESIDUAL, Steered, steered

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteeringEncoder:
    """Coordinates of a control vector."""

    name: str = "steering"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    needs: frozenset[str] = frozenset({RESIDUAL})
    adds: bool = False

    def under(self, policy: Policy, context: Vector) -> Policy:
        """Add the control vector.

        Raises
        ------
        ConfigError
            If the policy has no residual stream.
        """
        return steered(policy, context)

    def sums(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Compare the hidden states of what was chosen with those of what else there was."""
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        found = cast(Steered, policy).features([turn.situation for turn in turns])
        for turn, features, advantage in zip(turns, found, advantages, strict=True):
            probs = np.exp(turn.log_probs.astype(np.float64))
            mean = probs @ features
            gradient += advantage * (features[turn.action] - mean)
            fisher += probs @ (features - mean) ** 2
        return gradient, fisher
