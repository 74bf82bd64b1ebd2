"""Robust aggregation without seeing anybody: a trimmed mean over secure sums of groups that do not stand out."""

from __future__ import annotations

from logging import INFO
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, ExperienceVector
from .experience import log
from .robust import check_share, cosine, trimmed_mean
from .secure_groups import OUTLYING, SecureGroups
from .secure_mean import Tally

QUARTILE = 0.25  # honest groups are in it as long as three quarters of the groups are not spoilt


class GroupedSecure(SecureGroups):
    """Trimmed mean over secure sums of groups, on the scale of the cohort's sum.

    Options: those of `SecureGroups`, and these.

    Parameters
    ----------
    beta
        Fraction of the groups to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    norm_bound
        A group whose gradient or Fisher diagonal is longer than so many times that of the lowest quarter of the groups
        is left out, since it holds a device that does not clip.
    min_likeness
        A group whose gradient has a smaller cosine with the server's own, from public games, is left out (FLTrust, Cao
        et al. 2020, arXiv 2012.13995); -1 leaves none out, 0 those that point the other way.
    """

    def __init__(
        self,
        *arguments: Any,
        beta: float = 0.25,
        norm_bound: float = 4.0,
        min_likeness: float = -1.0,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta", beta, 0.5)
        if not norm_bound >= 1:
            raise ConfigError(f"norm-bound must be at least 1, not {norm_bound}")
        self.beta, self.norm_bound, self.min_likeness = beta, norm_bound, min_likeness

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Leave out the groups that stand out, and cut off the tails of the others."""
        kept = self._like(self._standing_in(sums), *self.place(server_round))
        if len(kept) < len(sums):
            tally.refused[OUTLYING] += len(sums) - len(kept)
        log(INFO, "exchange: %d of %d groups count", len(kept), len(sums))
        return self._combined(kept) if kept else None

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
