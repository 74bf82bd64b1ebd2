"""The longest step inside a trust region whose border only the model knows, looked for from the inside.

KL grows with the square of a step only as long as the step is short. Far out it can fall again: a soft prompt of large
random embeddings says nothing any more, and a teacher behind it looks like one without. A search that starts with the
whole step would stop there. This one goes outwards and ends at the first border.
"""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST = 1 / 256  # share of the whole step that is tried first
FARTHER = 4.0  # the next one is at most so many times as long
CLOSE = 0.8  # share of the largest KL that is near enough
AIM = 0.95  # of the length at which the border is expected
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
        if kl <= max_kl:
            inside, found = share, kl
        else:
            outside = share
        if inside == 1 or found >= CLOSE * max_kl:
            break
        expected = AIM * share * math.sqrt(max_kl / kl) if kl > 0 else math.inf
        if outside == math.inf:
            share = min(1.0, FARTHER * inside, max(expected, inside / AIM))
        else:
            share = expected if inside < expected < outside else (inside + outside) / 2
    return inside, found
