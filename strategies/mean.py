"""Sums of the cohort's vectors: the plain sum, which is the default, and sums with central or local noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.experience import Aggregate, Contribution, ExperienceVector, total
from ..protocol.secagg.masks import cell_type
from .budget import BudgetStrategy
from .experience import ExperienceStrategy


class Mean(ExperienceStrategy):
    """Sum the cohort's vectors. A client's weight is proportional to the number of turns that it played."""

    carries_words = True

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, and concatenate the words."""
        words = tuple(word for contribution in contributions for word in contribution.words)
        return Aggregate(total(contribution.vector for contribution in contributions), len(contributions), words=words)


class CentralMean(BudgetStrategy):
    """Central DP: a trusted server receives every vector and adds noise once, to the sum.

    For a given epsilon this needs the least noise of all mechanisms.
    """

    mechanisms = frozenset({"central"})

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip and round each vector as a device does under secure aggregation, sum, and add the noise."""
        spec, safeguards = contributions[0].vector.spec, self.server.safeguards
        plan = safeguards.plan(spec)
        safeguards.spend(self.current[0])
        noisy_sum = np.sum([plan.quantised(item.vector.parts()) for item in contributions], axis=0) + plan.noise()
        parts = plan.decode(noisy_sum.astype(cell_type(plan.bits)))
        return Aggregate(ExperienceVector.from_parts(spec, parts), len(contributions), plan.variance("gradient", 1))


class LocalMean(BudgetStrategy):
    """Local DP: every device adds the full noise to its own vector, so that it need not trust the server.

    For a given epsilon this needs the most noise of all mechanisms.
    """

    mechanisms = frozenset({"local"})

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, which carry noise already."""
        safeguards, devices = self.server.safeguards, len(contributions)
        plan = safeguards.plan(contributions[0].vector.spec)
        safeguards.spend(self.current[0])
        return Aggregate(total(item.vector for item in contributions), devices, plan.variance("gradient", devices))
