"""What is published of a noisy sum depends on the size of its cohort in no way but through the sum itself.

Amplification by sampling holds against those who do not know which devices were drawn. The exact size of a cohort would
tell them: two fleets that differ in one device have cohorts that differ in size more often than epsilon allows. The sum
of the devices' noise says something about the size, too: its variance grows with the number of survivors, and its steps
are those of the cohort's plan. So the server adds as much noise as is missing to a variance that is the same for every
cohort, which hides the steps as well. That is post-processing and costs no epsilon. Against the server itself, which
knows the cohort, sampling counts for nothing in any case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ..experience import Floats
from .plan import PrivacyPlan

MARGIN = 1.03  # of the public variance: plans differ by rounding (2 %), and what is added must hide the plan's steps


def public_factor(sizes: Iterable[int], max_dropout: float) -> float:
    """Return the public variance of the noise, as a multiple of that of the fewest survivors.

    Parameters
    ----------
    sizes
        Sizes of the cohorts that may be drawn.
    max_dropout
        Fraction of a cohort that may drop out; where nobody does, there is most noise.
    """
    fewest = ((size, math.floor(size * (1 - max_dropout))) for size in sizes)
    return MARGIN * max((size / survivors for size, survivors in fewest if survivors > 1), default=1.0)


def public_variance(public: PrivacyPlan, name: str, factor: float) -> float:
    """Return the variance of the noise in each entry of a part of every published sum, in the units of the vector."""
    return factor * public.variance(name, public.minimum)


def with_public_noise(
    parts: Mapping[str, Floats],
    plan: PrivacyPlan,
    devices: int,
    public: PrivacyPlan,
    factor: float,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Fill the noise of a sum up to the public variance.

    Parameters
    ----------
    parts
        The sum's parts by name, with the noise of its survivors.
    plan, devices
        Plan of the cohort, and number of survivors.
    public
        Plan of all cohorts that may be drawn.
    factor
        From `public_factor`.
    rng
        Must be seeded by the operating system where the result is published.
    """
    result = {}
    for name, values in parts.items():
        missing = public_variance(public, name, factor) - plan.variance(name, devices)
        result[name] = values + rng.normal(0.0, math.sqrt(max(0.0, missing)), values.shape)
    return result
