"""Coordinate-wise robust means: no device says more about a coordinate than those in the middle agree to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, Contribution
from .experience import ExperienceStrategy
from .robust import check_share, rows_of, spread, trimmed_mean


class TrimmedMean(ExperienceStrategy):
    """Trimmed mean of every coordinate (Yin et al. 2018, arXiv 1803.01498), on the scale of the cohort's sum.

    Parameters
    ----------
    beta
        Fraction to cut off of both tails of the distribution, in the range ``[0, 0.5)``. What fewer devices than that
        have seen is cut off too.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Trim and average gradient, Fisher diagonal and counters alike."""
        return spread(contributions, trimmed_mean(rows_of(contributions), self.beta))


class Median(ExperienceStrategy):
    """Median of every coordinate (Yin et al. 2018, arXiv 1803.01498), on the scale of the cohort's sum."""

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Take the middle device of each coordinate."""
        return spread(contributions, np.median(rows_of(contributions), axis=0))
