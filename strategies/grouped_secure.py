"""Robust aggregation without seeing anybody: a trimmed mean over secure sums of groups that do not stand out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, ExperienceVector
from .robust import check_share, cosine, trimmed_mean
from .secure_groups import SecureGroups, mean_device
from .secure_mean import Tally


class GroupedSecure(SecureGroups):
    """Trimmed mean over secure sums of groups, on the scale of the cohort's sum.

    Options: those of `SecureGroups`, and these.

    Parameters
    ----------
    beta
        Fraction of the groups to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    min_likeness
        A group whose gradient has a smaller cosine with the server's own, from public games, is left out (FLTrust, Cao
        et al. 2020, arXiv 2012.13995); -1 leaves none out, 0 those that point the other way.
    """

    def __init__(
        self,
        *arguments: Any,
        beta: float = 0.25,
        min_likeness: float = -1.0,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta", beta, 0.5)
        self.beta, self.min_likeness = beta, min_likeness

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Leave out the groups that stand out, and cut off the tails of the others."""
        kept = self._like(self.standing_in(sums), *self.place(server_round))
        self.left_out(len(sums) - len(kept), len(sums), tally)
        return self._combined(kept) if kept else None

    def _like(self, groups: list[Aggregate], cycle: int, exchange: int) -> list[Aggregate]:
        """Groups that point where the server's own experience points."""
        if self.min_likeness <= -1 or not groups:
            return groups
        own = self.server.rounds.reference(cycle, exchange).gradient
        return [group for group in groups if cosine(group.vector.gradient, own) >= self.min_likeness]

    def _combined(self, groups: list[Aggregate]) -> Aggregate:
        """Trimmed mean of the groups' mean devices, times the devices in them."""
        devices = sum(group.cohort for group in groups)
        means = np.stack([np.concatenate(list(mean_device(group).values())) for group in groups])
        gradient, fisher = np.split(devices * trimmed_mean(means, self.beta), 2)
        return Aggregate(
            ExperienceVector.from_parts(groups[0].vector.spec, {"gradient": gradient, "fisher": fisher}), devices
        )
