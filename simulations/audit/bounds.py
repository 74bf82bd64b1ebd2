"""Lower bounds of epsilon from one run: how well an attacker tells which canaries were in a sum.

Each canary is in with chance one half. `guess_bound` assumes nothing about the noise: a private mechanism bounds how
many guesses can be right (Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem 5.2). `gaussian_bound` takes scores
for Gaussian and compares the two means (after Andrew et al. 2023, arXiv 2302.03098): closer to the truth where that
holds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SHARES = (0.02, 0.1, 0.3)  # of the canaries that are guessed; the best bound counts, at a third of the error each
LARGEST = 100.0


def guess_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon from guesses about the canaries with the most extreme scores.

    Parameters
    ----------
    scores
        One a canary, larger where it seems to be in, centred between both.
    inside
        Which canaries were in.
    """
    order, error = np.argsort(-np.abs(scores)), (1 - confidence) / len(SHARES)
    found = [0.0]
    for share in SHARES:
        guessed = order[: max(1, int(share * len(scores)))]
        right = int(((scores[guessed] > 0) == inside[guessed]).sum())
        found.append(_largest_refuted(len(scores), len(guessed), right, delta, error))
    return max(found)


def gaussian_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon from the distance of the two means, in standard deviations, at its lower confidence limit."""
    a, b = scores[inside], scores[~inside]
    spread = math.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / (len(scores) - 2))
    if spread == 0:
        return LARGEST if a.mean() > b.mean() else 0.0
    distance = float(a.mean() - b.mean()) / spread
    error = math.sqrt(1 / len(a) + 1 / len(b) + distance**2 / (2 * len(scores)))
    return epsilon_of_distance(distance - stats.norm.ppf(confidence) * error, delta)


def epsilon_of_distance(distance: float, delta: float) -> float:
    """Epsilon of telling two unit Gaussians apart whose means lie so far from each other (Dong et al. 2022)."""

    def excess(epsilon: float) -> float:
        near, far = distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance
        return float(stats.norm.cdf(near) - math.exp(epsilon + stats.norm.logcdf(far))) - delta

    if distance <= 0 or excess(0.0) <= 0:
        return 0.0
    if excess(LARGEST) > 0:
        return LARGEST
    return float(optimize.brentq(excess, 0.0, LARGEST))


def _largest_refuted(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """Largest epsilon under which so many right guesses would be too lucky."""
    low, high = 0.0, LARGEST
    if _luck(canaries, guesses, right, low, delta) > error:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _luck(canaries, guesses, right, middle, delta) <= error else (low, middle)
    return low


def _luck(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Chance of at least so many right guesses under a mechanism that is (epsilon, delta) private."""
    chance = 1 / (1 + math.exp(-epsilon))
    exact = stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, chance).cumsum()
    worst = float((exact / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, float(stats.binom.sf(right - 1, guesses, chance)) + worst * delta * 2 * canaries)
