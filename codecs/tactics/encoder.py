"""The device's half of the tactics codec: counting, no model needed.

    g = sum_t A_t (phi(x_t, a_t) - E_pi phi(x_t, .))        F = sum_t Var_pi phi(x_t, .)

with phi(x, a) the unit vector of a's tactic in x: the policy gradient at w = 0 of the tilted policy, and the exact
expectation of its squared score function under the policy that played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import PROMPT, behind
from ...policies.policy import Policy
from ...protocol.experience import Vector
from ...protocol.play import Turn
from .coordinates import DIMENSION, VOCABULARY, advice, cells
from .tilted import TiltedPolicy

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TacticsEncoder:
    """Weights of the public tactics. A context tilts what the policy says, or is `spoken`: words in its prompt."""

    name: str = "tactics"
    spoken: bool = False
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    server: str = "fedoel.codecs.tactics.codec:TacticsCodec"

    @property
    def needs(self) -> frozenset[str]:
        """A prompt, where the context is spoken."""
        return frozenset({PROMPT}) if self.spoken else frozenset()

    @property
    def adds(self) -> bool:
        """A tilt only adds to scores; words do more."""
        return not self.spoken

    def under(self, policy: Policy, context: Vector) -> Policy:
        """Tilt or advise the policy; without a context it is the policy itself."""
        if self.spoken:
            words = advice(context)
            return behind(policy, words) if words else policy
        return TiltedPolicy(policy, context) if context.any() else policy

    def sums(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Count tactics; what the policy said is in the turns."""
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        for turn, advantage in zip(turns, advantages, strict=True):
            score, variance = moments(turn)
            gradient += advantage * score
            fisher += variance
        return gradient, fisher


def moments(turn: Turn) -> tuple[Floats, Floats]:
    """Score function of the command that was given, and variance of the features under the policy, each shape (d,)."""
    own = cells(turn.situation)
    probs = np.exp(turn.log_probs.astype(np.float64))
    mean: Floats = np.bincount(own, weights=probs, minlength=DIMENSION).astype(np.float64)
    score = -mean
    score[own[turn.action]] += 1.0
    return score, np.maximum(mean - mean**2, 0.0)
