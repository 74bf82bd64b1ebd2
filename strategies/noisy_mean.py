"""Noise without a secure sum: added by a server that is trusted, or by every device for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.experience import Aggregate, Contribution, ExperienceVector, total
from ..protocol.secagg.masks import cell_type
from .budget import BudgetStrategy


class CentralMean(BudgetStrategy):
    """The server sees every vector and adds the noise to their sum: the least noise there is, for who trusts it."""

    mechanisms = frozenset({"central"})

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip and round each vector as a device would, and add the noise once."""
        spec, safeguards = contributions[0].vector.spec, self.server.safeguards
        plan = safeguards.plan(spec)
        safeguards.spend(self.current[0])
        whole = np.sum([plan.quantised(each.vector.parts()) for each in contributions], axis=0) + plan.noise()
        parts = plan.decode(whole.astype(cell_type(plan.bits)))
        return Aggregate(ExperienceVector.from_parts(spec, parts), len(contributions), plan.variance("gradient", 1))


class LocalMean(BudgetStrategy):
    """Every device adds all of its noise itself and trusts nobody: the most noise there is."""

    mechanisms = frozenset({"local"})

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Add up what is noisy already."""
        safeguards, devices = self.server.safeguards, len(contributions)
        plan = safeguards.plan(contributions[0].vector.spec)
        safeguards.spend(self.current[0])
        return Aggregate(total(each.vector for each in contributions), devices, plan.variance("gradient", devices))
