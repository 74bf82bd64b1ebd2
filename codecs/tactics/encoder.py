"""The device half of the tactics codec: it counts tactics, without evaluating a model.

    g = sum_t A_t (phi(x_t, a_t) - E_pi phi(x_t, .))        F = sum_t Var_pi phi(x_t, .)

with phi(x, a) the one-hot vector of a's tactic in x. g is the policy gradient of the tilted policy at the context that
was played; F is the exact expectation of its squared score function under that policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.abilities import PROMPT, behind
from ...policies.policy import Policy
from ...protocol.experience import Floats, Vector
from ...protocol.play import Turn
from .coordinates import DIMENSION, VOCABULARY, advice, cells
from .policy import TiltedPolicy


@dataclass(frozen=True, slots=True)
class TacticsEncoder:
    """Weights of the public tactics. A context tilts log-probabilities or, if `spoken`, is advice in the prompt."""

    name: str = "tactics"
    spoken: bool = False
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    server: str = "fedoel.codecs.tactics.codec:TacticsCodec"

    @property
    def required_abilities(self) -> frozenset[str]:
        """A prompt, where the context is advice."""
        return frozenset({PROMPT}) if self.spoken else frozenset()

    @property
    def is_additive(self) -> bool:
        """True for a tilt, false for advice."""
        return not self.spoken

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Tilt or advise the policy; a context that changes nothing returns the policy itself."""
        if self.spoken:
            words = advice(context)
            return behind(policy, words) if words else policy
        return TiltedPolicy(policy, context) if context.any() else policy

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum score functions and variances from the log-probabilities that the turns hold."""
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        for turn, advantage in zip(turns, advantages, strict=True):
            score, variance = moments(turn)
            gradient += advantage * score
            fisher += variance
        return gradient, fisher


def moments(turn: Turn) -> tuple[Floats, Floats]:
    """Score function at the command that was given, and variance of the features under the policy, each shape (d,)."""
    tactics = cells(turn.situation)
    probs = np.exp(turn.log_probs.astype(np.float64))
    mean: Floats = np.bincount(tactics, weights=probs, minlength=DIMENSION).astype(np.float64)
    score = -mean
    score[tactics[turn.action]] += 1.0
    return score, np.maximum(mean - mean**2, 0.0)
