"""The longest step inside a trust region whose border only the model knows, looked for from the inside.

KL grows with the square of a step only as long as the step is short. Farther out it hardly grows, or falls: a soft
prompt of large random embeddings says nothing any more, and a teacher behind it looks like one without. Gradients
know nothing of such places, and a search that starts with the whole step would stop there. This one goes outwards,
and ends where the largest KL is reached or where KL begins to grow more slowly than the step itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST = 1 / 256  # share of the whole step that is tried first
FARTHER = 3.0  # the next one is at most so many times as long
CLOSE = 0.8  # share of the largest KL that is near enough
NARROW = 1.2  # between two lengths so near each other nothing is looked for
AIM = 0.95  # of the length at which the border is expected
NOTICED = 0.1  # share of the largest KL below which growth is rounding
TRIES = 12


def longest(measure: Callable[[float], float], max_kl: float) -> tuple[float, float]:
    """Find the share of a step that leads to the border of the trust region.

    Parameters
    ----------
    measure
        Mean KL in nats that a share of the step adds, for shares of up to 1.

    Returns
    -------
    Share and its KL, at most `max_kl`; zeros if even the shortest step that was tried adds more.
    """
    inside, found, outside, share = 0.0, 0.0, math.inf, FIRST
    for _ in range(TRIES):
        kl = measure(share)
        flat = found >= NOTICED * max_kl and kl / share < found / inside
        if not kl <= max_kl or flat:  # what is not a number is no place to go, either
            outside = share
        else:
            inside, found = share, kl
        if inside == 1 or found >= CLOSE * max_kl or outside < NARROW * inside:
            break
        share = _next(inside, found, outside, max_kl)
    return inside, found


def _next(inside: float, found: float, outside: float, max_kl: float) -> float:
    """Where the border would be if KL grew with the square of the step, or halfway to what is too far."""
    expected = AIM * inside * math.sqrt(max_kl / found) if found > 0 else math.inf
    if outside == math.inf:
        return min(1.0, FARTHER * inside, expected)
    return expected if expected < outside else (inside + outside) / 2
