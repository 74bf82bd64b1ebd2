"""Log-linear contexts: they add an offset w . phi(x, a) to the score of every command a in a situation x.

    pi_w(a | x) = pi(a | x) exp(w . phi(x, a)) / Z(x)

The teacher is known in closed form from the policy's log-probabilities and the offsets. Under step size scale t the
offsets of a step grow in proportion to t, and the KL over turns grows monotonically: bisection finds the border of the
trust region, without evaluating a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..policies.policy import LogProbs
from ..protocol.experience import Floats
from ..protocol.play import Turn

Offsets = NDArray[np.floating[Any]]
BISECTIONS = 24


def tilted(log_probs: LogProbs, offsets: Offsets) -> LogProbs:
    """Log-probabilities of the teacher, from the policy's and the offsets of a situation's commands, shapes (A,)."""
    scores = log_probs.astype(np.float64) + offsets.astype(np.float64)
    top = scores.max()
    normalised: LogProbs = (scores - top - np.log(np.exp(scores - top).sum())).astype(np.float32)
    return normalised


def gradient_and_fisher(
    turns: Sequence[Turn], features: Sequence[NDArray[np.float32]], advantages: Floats, dimension: int
) -> tuple[Floats, Floats]:
    """Sum score functions, weighted by advantages, and variances of the features, each of shape ``(dimension,)``.

        g = sum_t A_t (phi(x_t, a_t) - E_pi phi(x_t, .))        F = sum_t Var_pi phi(x_t, .)

    Parameters
    ----------
    features
        phi of every turn's commands, shapes ``(A, dimension)``.
    """
    gradient, fisher = np.zeros(dimension), np.zeros(dimension)
    for turn, phi, advantage in zip(turns, features, advantages, strict=True):
        probs = np.exp(turn.log_probs.astype(np.float64))
        mean = probs @ phi
        gradient += advantage * (phi[turn.action] - mean)
        fisher += probs @ (phi - mean) ** 2
    return gradient, fisher


def within_trust_region(
    log_probs: Sequence[LogProbs], offsets: Sequence[Offsets], max_kl: float
) -> tuple[float, float]:
    """Return the largest scale of a step whose mean KL over states stays within a bound, and that KL in nats.

    Parameters
    ----------
    log_probs
        The policy's log-probabilities before the step, shape (A,) for each state.
    offsets
        What the whole step adds to the scores, shape (A,) for each state.
    """
    wide = [(p.astype(np.float64), d.astype(np.float64)) for p, d in zip(log_probs, offsets, strict=True)]

    def mean_kl(scale: float) -> float:
        return float(np.mean([_kl(p, scale * d) for p, d in wide]))

    if (kl := mean_kl(1.0)) <= max_kl:
        return 1.0, kl
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_kl(middle) <= max_kl else (low, middle)
    return low, mean_kl(low)


def _kl(log_probs: NDArray[np.float64], offsets: NDArray[np.float64]) -> float:
    """KL(teacher || policy) of one state, where the teacher adds the offsets to the policy's scores."""
    scores = log_probs + offsets
    top = scores.max()
    log_normaliser = top + np.log(np.exp(scores - top).sum())
    teacher = np.exp(scores - log_normaliser)
    return float((teacher * (offsets - log_normaliser)).sum())
