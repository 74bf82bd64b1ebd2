"""Coordinate-wise trimmed mean and median (Yin et al. 2018, arXiv 1803.01498)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, Contribution
from .experience import ExperienceStrategy
from .robust import check_fraction, rows_of, scaled_to_sum, trimmed_mean


class TrimmedMean(ExperienceStrategy):
    """Coordinate-wise trimmed mean, scaled to the cohort's sum.

    Parameters
    ----------
    beta
        Fraction to cut off of both tails of the distribution, in the range ``[0, 0.5)``. A coordinate that is non-zero
        on a smaller fraction of the devices becomes zero.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Trim and average each coordinate of gradient, Fisher diagonal and counters."""
        return scaled_to_sum(contributions, trimmed_mean(rows_of(contributions), self.beta))


class Median(ExperienceStrategy):
    """Coordinate-wise median, scaled to the cohort's sum."""

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Take the median of each coordinate of gradient, Fisher diagonal and counters."""
        return scaled_to_sum(contributions, np.median(rows_of(contributions), axis=0))
