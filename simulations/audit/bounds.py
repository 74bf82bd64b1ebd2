"""Lower bounds on epsilon from one run: how well an attacker tells which canaries were in a sum.

Each canary is included with probability one half. `guess_bound` makes no assumption about the noise: an (epsilon,
delta) private mechanism limits the number of correct guesses (Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem
5.2). `gaussian_bound` assumes Gaussian scores and compares the two means (after Andrew et al. 2023, arXiv 2302.03098),
which gives a tighter bound where the assumption holds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SHARES = (0.02, 0.1, 0.3)  # fractions of canaries to guess; the largest bound is used, with a third of the error each
LARGEST = 100.0


def guess_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon by the number of correct guesses about the canaries with the most extreme scores.

    Parameters
    ----------
    scores
        One score per canary; positive means a guess that it is included.
    inside
        Which canaries were included.
    """
    order, error = np.argsort(-np.abs(scores)), (1 - confidence) / len(SHARES)
    bounds = [0.0]
    for share in SHARES:
        guessed = order[: max(1, int(share * len(scores)))]
        correct = int(((scores[guessed] > 0) == inside[guessed]).sum())
        bounds.append(_largest_refuted(len(scores), len(guessed), correct, delta, error))
    return max(bounds)


def gaussian_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon by the lower confidence limit of the distance between the two means, in standard deviations."""
    a, b = scores[inside], scores[~inside]
    spread = math.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / (len(scores) - 2))
    if spread == 0:
        return LARGEST if a.mean() > b.mean() else 0.0
    distance = float(a.mean() - b.mean()) / spread
    error = math.sqrt(1 / len(a) + 1 / len(b) + distance**2 / (2 * len(scores)))
    return epsilon_of_distance(distance - stats.norm.ppf(confidence) * error, delta)


def epsilon_of_distance(distance: float, delta: float) -> float:
    """Epsilon of two unit Gaussians whose means are `distance` apart (Dong et al. 2022, arXiv 1905.02383)."""

    def excess(epsilon: float) -> float:
        near, far = distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance
        return float(stats.norm.cdf(near) - math.exp(epsilon + stats.norm.logcdf(far))) - delta

    if distance <= 0 or excess(0.0) <= 0:
        return 0.0
    if excess(LARGEST) > 0:
        return LARGEST
    return float(optimize.brentq(excess, 0.0, LARGEST))


def _largest_refuted(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Largest epsilon for which the p-value of so many correct guesses is at most `error`, by bisection."""
    low, high = 0.0, LARGEST
    if _p_value(canaries, guesses, correct, low, delta) > error:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(canaries, guesses, correct, middle, delta) <= error else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of at least so many correct guesses under an (epsilon, delta) private mechanism."""
    chance = 1 / (1 + math.exp(-epsilon))
    exact = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance).cumsum()
    worst = float((exact / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, float(stats.binom.sf(correct - 1, guesses, chance)) + worst * delta * 2 * canaries)
