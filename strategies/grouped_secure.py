"""Robust aggregation under secure aggregation: a trimmed mean over the secure sums of groups of devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, ExperienceVector
from .robust import check_fraction, cosine, trimmed_mean
from .secure_groups import SecureGroups, group_mean
from .secure_mean import Tally


class GroupedSecure(SecureGroups):
    """Trimmed mean (Yin et al. 2018, arXiv 1803.01498) over the means of groups, scaled to the cohort's sum.

    Parameters
    ----------
    beta
        Fraction of the groups to drop from each tail of each coordinate, in the range ``[0, 0.5)``.
    min_likeness
        Smallest cosine similarity between a group's gradient and the server's own from public games, as the root of
        trust in FLTrust (Cao et al. 2020, arXiv 2012.13995). Groups below it are excluded; -1 excludes none, 0 those
        that point away.
    group_size, norm_bound
        See `SecureGroups`.
    """

    def __init__(
        self,
        *arguments: Any,
        beta: float = 0.25,
        min_likeness: float = -1.0,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta, self.min_likeness = beta, min_likeness

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Exclude outlying groups, and return the trimmed mean of the others; None if none is left."""
        kept = self._aligned(self.within_norm_bound(sums), *self.place(server_round))
        self.record_excluded(len(sums) - len(kept), len(sums), tally)
        return self._trimmed(kept) if kept else None

    def _aligned(self, groups: list[Aggregate], cycle: int, exchange: int) -> list[Aggregate]:
        """Keep the groups whose gradients are similar enough to the server's own."""
        if self.min_likeness <= -1 or not groups:
            return groups
        reference = self.server.rounds.reference(cycle, exchange).gradient
        return [group for group in groups if cosine(group.vector.gradient, reference) >= self.min_likeness]

    def _trimmed(self, groups: list[Aggregate]) -> Aggregate:
        """Return the trimmed mean of the groups' means, times the number of devices in all of them."""
        devices = sum(group.cohort for group in groups)
        means = np.stack([np.concatenate(list(group_mean(group).values())) for group in groups])
        gradient, fisher = np.split(devices * trimmed_mean(means, self.beta), 2)
        return Aggregate(
            ExperienceVector.from_parts(groups[0].vector.spec, {"gradient": gradient, "fisher": fisher}), devices
        )
