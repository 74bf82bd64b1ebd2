"""The plain strategy: add up every contribution."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.experience import Aggregate, Contribution, total
from .experience import ExperienceStrategy


class Mean(ExperienceStrategy):
    """Every client counts by what it played: the aggregate is the sum over the cohort."""

    carries_words = True

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors; the mean per client is this over `cohort`. Words are put one after the other."""
        words = tuple(word for contribution in contributions for word in contribution.words)
        return Aggregate(total(contribution.vector for contribution in contributions), len(contributions), words=words)
