"""Secure sums over small groups: the server sees a sum over each group, and no single vector.

A device that lies spoils its own group only (group-wise robustness, as in Xhemrishi et al. 2023, arXiv 2306.02907).
Small groups are more robust and hide a device among fewer: that is the choice that `group_size` makes.
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
QUARTILE = 0.25  # honest groups are in it as long as three quarters of the groups are not spoilt


class SecureGroups(SecureMean):
    """What secure sums over groups have in common; no noise is added. `combine` makes one aggregate of them.

    Parameters
    ----------
    group_size
        Devices in a group, at least; a vector hides among so many.
    norm_bound
        A group whose gradient or Fisher diagonal is longer than so many times that of the lowest quarter of the groups
        is left out, since it holds a device that does not clip.
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
        """Refuse groups in which secrets would not be safe, and cohorts that are one group."""
        safeguards = self.server.safeguards
        if safeguards.sample < 2 * self.group_size:
            raise ConfigError(
                f"{safeguards.sample} devices an exchange do not make two groups of {self.group_size}: raise clients "
                "or strategy.fraction-train, or lower group-size in strategy.options"
            )
        self.check_graph(self.group_size)

    def plan(self, spec: VectorSpec) -> PrivacyPlan:
        """Return the plan of one group's sum: that of the run, for as many devices as a group may have."""
        whole = self.server.safeguards.plan(spec)
        least = max(2, int(self.group_size * (1 - self.server.safeguards.max_dropout)))
        return PrivacyPlan.make(whole.parts, 2 * self.group_size - 1, least, 0.0)

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Deal a cohort, which comes in random order, into groups of at least `group_size`."""
        count = max(1, len(cohort) // self.group_size)
        return [cohort[start::count] for start in range(count)]

    def standing_in(self, groups: Sequence[Aggregate]) -> list[Aggregate]:
        """Leave out groups whose mean device is much longer than in others that have learned anything."""
        norms = np.array([[np.linalg.norm(part) for part in mean_device(group).values()] for group in groups])
        quarter = np.array([np.quantile(column[column > 0], QUARTILE) if column.any() else 0.0 for column in norms.T])
        return [g for g, norm in zip(groups, norms, strict=True) if (norm <= self.norm_bound * quarter).all()]

    def left_out(self, count: int, of: int, tally: Tally) -> None:
        """Count groups that do not count, and say so."""
        if count:
            tally.refused[OUTLYING] += count
        log(INFO, "exchange: %d of %d groups count", of - count, of)


def mean_device(group: Aggregate) -> dict[str, NDArray[np.float64]]:
    """Return the parts of a group's sum, divided by the devices in it."""
    return {name: values / group.cohort for name, values in group.vector.parts().items()}
