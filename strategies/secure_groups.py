"""Secure aggregation in groups: the server learns the sum over each group, and no single vector.

A malicious device corrupts the sum of its own group only (group-wise robustness: Xhemrishi et al. 2023, arXiv
2306.02907). `group_size` trades robustness against privacy: in smaller groups fewer honest devices share a corrupted
sum, but a vector is hidden among fewer others.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, VectorSpec
from ..protocol.privacy.plan import PrivacyPlan
from .experience import log
from .secure_mean import SecureMean, Tally

OUTLYING = "group left out"
SMALLEST = 3
QUARTILE = 0.25  # lower quartile of norms: robust as long as at least a quarter of the groups is honest


class SecureGroups(SecureMean):
    """Base class of strategies over secure sums of groups, without noise; subclasses override `combine`.

    Parameters
    ----------
    group_size
        Smallest number of devices in a group.
    norm_bound
        A group is excluded if its mean gradient or Fisher diagonal is longer than this multiple of the groups' lower
        quartile: then it contains a device that does not clip.
    """

    mechanisms = frozenset({"none"})

    def __init__(self, *arguments: Any, group_size: int = 4, norm_bound: float = 4.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if group_size < SMALLEST or not norm_bound >= 1:
            raise ConfigError(
                f"group-size must be at least {SMALLEST} and norm-bound at least 1, not {group_size} and {norm_bound}"
            )
        self.group_size, self.norm_bound = group_size, norm_bound

    def check(self, spec: VectorSpec) -> None:
        """Refuse groups too small for a secure sum, and cohorts too small for two groups."""
        safeguards = self.server.safeguards
        if safeguards.sample < 2 * self.group_size:
            raise ConfigError(
                f"{safeguards.sample} devices per exchange do not make two groups of {self.group_size}: raise clients "
                "or strategy.fraction-train, or lower group-size in strategy.options"
            )
        self.check_graph(self.group_size)

    def plan(self, spec: VectorSpec) -> PrivacyPlan:
        """Return the plan of one group's sum: the parts of the run's plan, for the possible sizes of a group."""
        run_plan = self.server.safeguards.plan(spec)
        minimum = max(2, int(self.group_size * (1 - self.server.safeguards.max_dropout)))
        return PrivacyPlan.make(run_plan.parts, 2 * self.group_size - 1, minimum, 0.0)

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Partition a cohort, which is in random order, into groups of at least `group_size` devices."""
        count = max(1, len(cohort) // self.group_size)
        return [cohort[start::count] for start in range(count)]

    def within_norm_bound(self, groups: Sequence[Aggregate]) -> list[Aggregate]:
        """Keep the groups whose mean vectors are within the norm bound; zero norms do not enter the quartile."""
        norms_GP = np.array([[np.linalg.norm(part) for part in group_mean(group).values()] for group in groups])
        quartile_P = np.array([np.quantile(norms[norms > 0], QUARTILE) if norms.any() else 0.0 for norms in norms_GP.T])
        return [g for g, norms in zip(groups, norms_GP, strict=True) if (norms <= self.norm_bound * quartile_P).all()]

    def record_excluded(self, excluded: int, groups: int, tally: Tally) -> None:
        """Add the number of excluded groups to the tally of refusals, and log it."""
        if excluded:
            tally.refused[OUTLYING] += excluded
        log(INFO, "exchange: %d of %d groups aggregated", groups - excluded, groups)


def group_mean(group: Aggregate) -> dict[str, NDArray[np.float64]]:
    """Return the parts of a group's sum, divided by the number of devices in the group."""
    return {name: values / group.cohort for name, values in group.vector.parts().items()}
