"""How far a step of the tactics' weights may go: inside the trust region, measured on turns that were played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...protocol.experience import Vector
from ...protocol.play import Turn
from .coordinates import cells

HALVINGS = 24
LARGEST_WEIGHT = 6.0  # a command made 400 times as likely, or as unlikely: beyond that only rounding changes


def within_trust_region(turns: Sequence[Turn], full: Vector, max_kl: float) -> tuple[float, float]:
    """Return how much of a step keeps the mean KL that it adds within a bound, by bisection, and that KL."""
    scorer, low, high = _Divergence(turns, full), 0.0, 1.0
    if scorer.mean_kl(1.0) <= max_kl:
        return 1.0, scorer.mean_kl(1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if scorer.mean_kl(middle) <= max_kl else (low, middle)
    return low, scorer.mean_kl(low)


class _Divergence:
    """KL(teacher || player) as a function of the step's scale, with the tilts computed once."""

    def __init__(self, turns: Sequence[Turn], full: Vector) -> None:
        self._log_probs = [turn.log_probs.astype(np.float64) for turn in turns]
        self._tilts = [full.astype(np.float64)[cells(turn.situation)] for turn in turns]

    def mean_kl(self, scale: float) -> float:
        return float(np.mean([_kl(p, scale * t) for p, t in zip(self._log_probs, self._tilts, strict=True)]))


def _kl(log_probs: NDArray[np.float64], tilts: NDArray[np.float64]) -> float:
    scores = log_probs + tilts
    top = scores.max()
    log_normaliser = top + np.log(np.exp(scores - top).sum())
    tilted = np.exp(scores - log_normaliser)
    return float((tilted * (tilts - log_normaliser)).sum())
