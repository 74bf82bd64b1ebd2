"""Robust aggregation without seeing anybody: secure sums over small groups, and a trimmed mean over the groups.

The server sees a sum over each group and no single vector. A device that lies spoils its own group only, and a group
that stands out is left out (group-wise robustness, as in Xhemrishi et al. 2023, arXiv 2306.02907). Small groups are
more robust and hide a device among fewer: that is the choice that `group_size` makes.
"""

from __future__ import annotations

from logging import INFO
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, ExperienceVector, VectorSpec
from ..protocol.privacy.plan import Plan
from .experience import log
from .robust import check_share, cosine, trimmed_mean
from .secure_mean import SecureMean, Tally

OUTLYING = "group left out"
SMALLEST = 3
QUARTILE = 0.25  # honest groups are in it as long as three quarters of the groups are not spoilt


class GroupedSecure(SecureMean):
    """Trimmed mean over secure sums of groups, on the scale of the cohort's sum; no noise is added.

    Parameters
    ----------
    group_size
        Devices in a group, at least; a vector hides among so many.
    beta
        Fraction of the groups to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    norm_bound
        A group whose gradient or Fisher diagonal is longer than so many times that of the lowest quarter of the groups
        is left out, since it holds a device that does not clip.
    min_likeness
        A group whose gradient has a smaller cosine with the server's own, from public games, is left out (FLTrust, Cao
        et al. 2020, arXiv 2012.13995); -1 leaves none out, 0 those that point the other way.
    """

    mechanisms = frozenset({"none"})

    def __init__(
        self,
        *arguments: Any,
        group_size: int = 4,
        beta: float = 0.25,
        norm_bound: float = 4.0,
        min_likeness: float = -1.0,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta", beta, 0.5)
        if group_size < SMALLEST or not norm_bound >= 1:
            raise ConfigError(
                f"group-size must be at least {SMALLEST} and norm-bound at least 1, not {group_size} and {norm_bound}"
            )
        self.group_size, self.beta, self.norm_bound = group_size, beta, norm_bound
        self.min_likeness = min_likeness

    def check(self, spec: VectorSpec) -> None:
        """Refuse groups in which secrets would not be safe, and cohorts that are one group."""
        safeguards = self.consolidator.safeguards
        if safeguards.sample < 2 * self.group_size:
            raise ConfigError(
                f"{safeguards.sample} devices an exchange do not make two groups of {self.group_size}: raise clients "
                "or strategy.fraction-train, or lower group-size in strategy.options"
            )
        self.check_graph(self.group_size)

    def plan(self, spec: VectorSpec) -> Plan:
        """Return the plan of one group's sum: that of the run, for as many devices as a group may have."""
        whole = self.consolidator.safeguards.plan(spec)
        least = max(2, int(self.group_size * (1 - self.consolidator.safeguards.max_dropout)))
        return Plan.make(whole.parts, 2 * self.group_size - 1, least, 0.0)

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Leave out the groups that stand out, and cut off the tails of the others."""
        kept = self._like(self._standing_in(sums), *self.place(server_round))
        if len(kept) < len(sums):
            tally.refused[OUTLYING] += len(sums) - len(kept)
        log(INFO, "exchange: %d of %d groups count", len(kept), len(sums))
        return self._combined(kept) if kept else None

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Deal a cohort, which comes in random order, into groups of at least `group_size`."""
        count = max(1, len(cohort) // self.group_size)
        return [cohort[start::count] for start in range(count)]

    def _standing_in(self, groups: list[Aggregate]) -> list[Aggregate]:
        """Groups whose mean device is not much longer than in others."""
        norms = np.array([[np.linalg.norm(part) / group.cohort for part in _parts(group)] for group in groups])
        bound = self.norm_bound * np.quantile(norms, QUARTILE, axis=0)
        return [group for group, norm in zip(groups, norms, strict=True) if (norm <= bound).all()]

    def _like(self, groups: list[Aggregate], cycle: int, exchange: int) -> list[Aggregate]:
        """Groups that point where the server's own experience points."""
        if self.min_likeness <= -1 or not groups:
            return groups
        own = self.consolidator.reference(cycle, exchange).gradient
        return [group for group in groups if cosine(group.vector.gradient, own) >= self.min_likeness]

    def _combined(self, groups: list[Aggregate]) -> Aggregate:
        """Trimmed mean of the groups' mean devices, times the devices in them."""
        devices = sum(group.cohort for group in groups)
        means = np.stack([np.concatenate(_parts(group)) / group.cohort for group in groups])
        gradient, fisher = np.split(devices * trimmed_mean(means, self.beta), 2)
        return Aggregate(
            ExperienceVector.from_parts(groups[0].vector.spec, {"gradient": gradient, "fisher": fisher}), devices
        )


def _parts(group: Aggregate) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    return list(group.vector.parts().values())
