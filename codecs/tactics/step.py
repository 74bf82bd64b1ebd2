"""The trust region of `tactics`: bisection on a KL that turns already played give in closed form.

Under step size scale t the teacher is pi(a | x) exp(t d_a) / Z with d_a the step at a's tactic, so that its KL needs no
model and grows monotonically in t.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...protocol.experience import Vector
from ...protocol.play import Turn
from .coordinates import cells

BISECTIONS = 24
LARGEST_WEIGHT = 6.0  # makes a command exp(6) = 400 times as likely: beyond that only rounding changes


def within_trust_region(turns: Sequence[Turn], full: Vector, max_kl: float) -> tuple[float, float]:
    """Return the largest scale of a step whose mean KL over turns stays within a bound, and that KL in nats."""
    log_probs = [turn.log_probs.astype(np.float64) for turn in turns]
    offsets = [full.astype(np.float64)[cells(turn.situation)] for turn in turns]

    def mean_kl(scale: float) -> float:
        return float(np.mean([_kl(p, scale * d) for p, d in zip(log_probs, offsets, strict=True)]))

    if (kl := mean_kl(1.0)) <= max_kl:
        return 1.0, kl
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_kl(middle) <= max_kl else (low, middle)
    return low, mean_kl(low)


def _kl(log_probs: NDArray[np.float64], offsets: NDArray[np.float64]) -> float:
    """KL(teacher || policy) of one turn, where the teacher adds the offsets to the policy's scores."""
    scores = log_probs + offsets
    top = scores.max()
    log_normaliser = top + np.log(np.exp(scores - top).sum())
    teacher = np.exp(scores - log_normaliser)
    return float((teacher * (offsets - log_normaliser)).sum())
