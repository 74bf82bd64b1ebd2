"""Exact sampling of the discrete Gaussian from the operating system's randomness (Canonne, Kamath, Steinke 2020).

Algorithms 1-3 of arXiv 2004.00010, in rational arithmetic, which avoids attacks on floating-point noise. The one
library with an exact sampler installs 265 MB, too much for a device.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

RandBelow = Callable[[int], int]


def discrete_gaussian(variance: Fraction, count: int, below: RandBelow = secrets.randbelow) -> NDArray[np.int64]:
    """Draw integers x with probability proportional to ``exp(-x^2 / (2 variance))``.

    Parameters
    ----------
    variance
        The parameter sigma^2 >= 0; for large values it is nearly the distribution's variance.
    count
        Number of samples.
    below
        Returns a uniform random integer below its argument, from 0; tests pass a seeded generator.

    Returns
    -------
    array
        Shape ``(count,)``.
    """
    if variance == 0:
        return np.zeros(count, dtype=np.int64)
    scale = isqrt(int(variance)) + 1
    return np.fromiter((_draw(variance, scale, below) for _ in range(count)), dtype=np.int64, count=count)


def _draw(variance: Fraction, scale: int, below: RandBelow) -> int:
    """Sample by rejection from a discrete Laplace distribution (algorithm 3)."""
    numerator, denominator = variance.numerator, variance.denominator
    while True:
        candidate = _laplace(scale, below)
        # (|y| - variance / scale)^2 / (2 variance), as one fraction
        distance = abs(candidate) * scale * denominator - numerator
        if _bernoulli_exp(distance * distance, 2 * numerator * denominator * scale * scale, below):
            return candidate


def _laplace(scale: int, below: RandBelow) -> int:
    """Draw an integer x with probability proportional to ``exp(-|x| / scale)`` (algorithm 2)."""
    while True:
        remainder = below(scale)
        if not _bernoulli_exp(remainder, scale, below):
            continue
        quotient = 0
        while _bernoulli_exp(1, 1, below):
            quotient += 1
        magnitude = remainder + scale * quotient
        negative = below(2)
        if magnitude or not negative:  # reject -0, so that zero is not twice as likely
            return -magnitude if negative else magnitude


def _bernoulli_exp(numerator: int, denominator: int, below: RandBelow) -> bool:
    """Return True with probability ``exp(-numerator / denominator)`` (algorithm 1)."""
    while numerator > denominator:
        if not _bernoulli_exp_unit(1, 1, below):
            return False
        numerator -= denominator
    return _bernoulli_exp_unit(numerator, denominator, below)


def _bernoulli_exp_unit(numerator: int, denominator: int, below: RandBelow) -> bool:
    """Return the same for a ratio of at most one, by von Neumann's method: the parity of the first failed trial."""
    trial = 1
    while below(denominator * trial) < numerator:
        trial += 1
    return trial % 2 == 1
