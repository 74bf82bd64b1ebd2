"""The default strategy: the sum of all contributions."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.experience import Aggregate, Contribution, total
from .experience import ExperienceStrategy


class Mean(ExperienceStrategy):
    """Sum the cohort's vectors. A client's weight is proportional to the number of turns that it played."""

    carries_words = True

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, and concatenate the words."""
        words = tuple(word for contribution in contributions for word in contribution.words)
        return Aggregate(total(contribution.vector for contribution in contributions), len(contributions), words=words)
