"""The discrete Gaussian, sampled exactly from the operating system's randomness (Canonne, Kamath, Steinke 2020).

Algorithms 1-3 of arXiv 2004.00010, with rational numbers throughout: no floating-point value decides anything, so
there is none to attack. The one library that does this takes 265 MB, which is more than a device has to spare.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Below = Callable[[int], int]


def discrete_gaussian(variance: Fraction, count: int, below: Below = secrets.randbelow) -> NDArray[np.int64]:
    """Draw whole numbers with probability proportional to ``exp(-x^2 / (2 variance))``.

    Parameters
    ----------
    variance
        The parameter sigma squared, zero or more; for a wide distribution it is the variance.
    below
        Draws a whole number below another, uniformly; something repeatable in tests.

    Returns
    -------
    array
        Shape ``(count,)``.
    """
    if variance == 0:
        return np.zeros(count, dtype=np.int64)
    scale = isqrt(int(variance)) + 1
    return np.fromiter((_draw(variance, scale, below) for _ in range(count)), dtype=np.int64, count=count)


def _draw(variance: Fraction, scale: int, below: Below) -> int:
    """Draw from a discrete Laplace distribution, and keep it with the chance that makes it a Gaussian (algorithm 3)."""
    top, bottom = variance.numerator, variance.denominator
    while True:
        drawn = _laplace(scale, below)
        # (|y| - variance / scale)^2 / (2 variance), as one fraction
        distance = abs(drawn) * scale * bottom - top
        if _happens(distance * distance, 2 * top * bottom * scale * scale, below):
            return drawn


def _laplace(scale: int, below: Below) -> int:
    """Draw with probability proportional to ``exp(-|x| / scale)`` (algorithm 2)."""
    while True:
        rest = below(scale)
        if not _happens(rest, scale, below):
            continue
        whole = 0
        while _happens(1, 1, below):
            whole += 1
        size = rest + scale * whole
        negative = below(2)
        if size or not negative:  # zero has one sign only
            return -size if negative else size


def _happens(top: int, bottom: int, below: Below) -> bool:
    """Return True with probability ``exp(-top / bottom)`` (algorithm 1)."""
    while top > bottom:
        if not _small(1, 1, below):
            return False
        top -= bottom
    return _small(top, bottom, below)


def _small(top: int, bottom: int, below: Below) -> bool:
    """The same for an exponent of at most one: by von Neumann, from the length of a run of shrinking chances."""
    run = 1
    while below(bottom * run) < top:
        run += 1
    return run % 2 == 1
