"""Line search for the border of the trust region along a step, where only the model can tell the KL.

KL grows with the square of the step only while the step is short. Farther out it grows slowly, or falls: a soft prompt
of large random embeddings is noise that the model ignores, and its KL to the bare text is small again. Gradients vanish
there, too, and a search that starts from the whole step would end there. This search therefore goes outwards from a
short step. It ends near the largest KL, or where KL begins to grow more slowly than the step.

Contexts of `tactics` need no such search: their KL has a closed form and grows monotonically along a step, so that
`fedoel.codecs.tactics.policy` bisects.
"""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST_SHARE = 1 / 256  # of the whole step
MAX_GROWTH = 3.0  # factor between consecutive shares
CLOSE_ENOUGH = 0.8  # of the largest KL: ends the search
NARROW = 1.2  # ratio of the shares outside and inside that ends the search
SAFETY = 0.95  # of the share at which the border is expected
MEASURABLE = 0.1  # of the largest KL: below it, growth is rounding error
MAX_EVALUATIONS = 12


def largest_share(kl_at: Callable[[float], float], max_kl: float) -> tuple[float, float]:
    """Find the largest share of a step whose KL stays within a bound, searching outwards.

    Parameters
    ----------
    kl_at
        Mean KL in nats that a share of the step adds, for shares of up to 1.
    max_kl
        The bound in nats.

    Returns
    -------
    share, kl
        The share and its KL, at most `max_kl`; zeros if even the shortest share that was tried exceeds it.
    """
    inside, inside_kl, outside, share = 0.0, 0.0, math.inf, FIRST_SHARE
    for _ in range(MAX_EVALUATIONS):
        kl = kl_at(share)
        flat = inside_kl >= MEASURABLE * max_kl and kl / share < inside_kl / inside
        if not kl <= max_kl or flat:  # `not <=` puts NaN outside, too
            outside = share
        else:
            inside, inside_kl = share, kl
        if inside == 1 or inside_kl >= CLOSE_ENOUGH * max_kl or outside < NARROW * inside:
            break
        share = _next_share(inside, inside_kl, outside, max_kl)
    return inside, inside_kl


def _next_share(inside: float, inside_kl: float, outside: float, max_kl: float) -> float:
    """Where the border would be if KL grew with the square of the step; otherwise the middle of the bracket."""
    expected = SAFETY * inside * math.sqrt(max_kl / inside_kl) if inside_kl > 0 else math.inf
    if outside == math.inf:
        return min(1.0, MAX_GROWTH * inside, expected)
    return expected if expected < outside else (inside + outside) / 2
