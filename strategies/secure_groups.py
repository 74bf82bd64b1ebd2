"""Secure aggregation in groups: the server learns the sum over each group, and no single vector.

A malicious device corrupts the sum of its own group only (group-wise robustness: Xhemrishi et al. 2023, arXiv
2306.02907). `group_size` trades robustness against privacy: in smaller groups fewer honest devices share a corrupted
sum, but a vector is hidden among fewer others.

Groups are the same in every cycle, as long as the cohort is. A device whose groups differ, because devices come and go
or `fraction_train` is below 1, is in several sums with different others. From enough of them the server can estimate
what the device sends on average, however many are in a group: what it plays, for example. There is no noise, so nothing
bounds this.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.trials import is_trial
from .experience import log
from .robust import check_fraction, clipped_to_median, cosine, rows_of, scaled_to_sum, trimmed_mean, trust_scores
from .secure_mean import SecureMean, Tally

OUTLYING = "group left out"
SMALLEST = 3
QUARTILE = 0.25  # lower quartile of norms: robust as long as at least a quarter of the groups is honest


def fewest_of_group(group_size: int, max_dropout: float) -> int:
    """Return the fewest devices that the sum of a group can be over."""
    return max(2, int(group_size * (1 - max_dropout)))


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

    mechanisms = frozenset({"none"})  # noise for each small group would drown its sum

    def __init__(self, *arguments: Any, group_size: int = 4, norm_bound: float = 4.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if group_size < SMALLEST or not norm_bound >= 1:
            raise ConfigError(
                f"group-size must be at least {SMALLEST} and norm-bound at least 1, not {group_size} and {norm_bound}"
            )
        self.group_size, self.norm_bound, self.least_of_trial = group_size, norm_bound, 2 * group_size

    def check(self, spec: VectorSpec) -> None:
        """Refuse groups too small for a secure sum, and cohorts too small for two groups."""
        safeguards = self.server.safeguards
        sample = safeguards.sample(spec)
        if sample < 2 * self.group_size:
            what, share = ("a part of a trial", ", or trial.share") if is_trial(spec) else ("an exchange", "")
            raise ConfigError(
                f"{sample} devices in {what} do not make two groups of {self.group_size}: raise clients "
                f"or strategy.fraction-train{share}, or lower group-size in strategy.options"
            )
        self.check_graph(self.group_size, spec)

    def plan(self, spec: VectorSpec, cohort: int | None = None) -> PrivacyPlan:
        """Return the plan of one group's sum: the parts of the run's plan, for the possible sizes of a group."""
        run_plan = self.server.safeguards.plan(spec)
        minimum = fewest_of_group(self.group_size, self.server.safeguards.max_dropout)
        return PrivacyPlan.make(run_plan.parts, 2 * self.group_size - 1, minimum, 0.0)

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Partition a cohort into groups of at least `group_size` devices, the same ones for the same cohort.

        Were they dealt anew in every cycle, the sums of some cycles would be as many equations as there are devices.
        Within a group, devices stay in the random order of the cohort.
        """
        count = max(1, len(cohort) // self.group_size)
        ranked = sorted(cohort, key=lambda node: (np.random.default_rng([self.seed, node]).random(), node))
        group_of = {node: rank % count for rank, node in enumerate(ranked)}
        return [[node for node in cohort if group_of[node] == group] for group in range(count)]

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

    def __init__(self, *arguments: Any, beta: float = 0.25, min_likeness: float = -1.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta, self.min_likeness = beta, min_likeness
        self.needs_games = min_likeness > -1

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Exclude outlying groups, and return the trimmed mean of the others; None if none is left."""
        kept = self._aligned(self.within_norm_bound(sums), *self.place(server_round))
        self.record_excluded(len(sums) - len(kept), len(sums), tally)
        return self._trimmed(kept) if kept else None

    def _aligned(self, groups: list[Aggregate], cycle: int, exchange: int) -> list[Aggregate]:
        """Keep the groups whose gradients are similar enough to the server's own."""
        if self.min_likeness <= -1 or not groups:
            return groups
        reference = self.server.reference(cycle, exchange).gradient
        return [group for group in groups if cosine(group.vector.gradient, reference) >= self.min_likeness]

    def _trimmed(self, groups: list[Aggregate]) -> Aggregate:
        """Return the trimmed mean of the groups' means, times the number of devices in all of them."""
        spec, devices = groups[0].vector.spec, sum(group.cohort for group in groups)
        means = np.stack([np.concatenate(list(group_mean(group).values())) for group in groups])
        gradient, fisher = np.split(devices * trimmed_mean(means, self.beta), 2)
        return Aggregate(ExperienceVector.from_parts(spec, {"gradient": gradient, "fisher": fisher}), devices)


class TrustedSecure(SecureGroups):
    """FLTrust (Cao et al. 2020, arXiv 2012.13995) over secure sums of groups instead of single vectors.

    It is a weighted mean of the groups' means. Each mean is clipped to the median norm, and weighted by the size of the
    group and by the trust score (see `Trusted`) of its sum. A group with a malicious device is less aligned with the
    server's own gradient and gets a lower weight; the number of malicious devices need not be known. Options are those
    of `SecureGroups`.
    """

    needs_games = True

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Average the trusted groups, and scale to the sum over their devices; None if no group is trusted."""
        reference = self.server.reference(*self.place(server_round)).gradient
        groups = self.within_norm_bound(sums)
        trust = trust_scores([group.vector for group in groups], reference)
        trusted = [(group, score) for group, score in zip(groups, trust, strict=True) if score > 0]
        self.record_excluded(len(sums) - len(trusted), len(sums), tally)
        if not trusted:
            return None
        means = [
            Contribution(index, ExperienceVector.from_parts(group.vector.spec, group_mean(group)))
            for index, (group, _) in enumerate(trusted)
        ]
        devices = np.array([group.cohort for group, _ in trusted])
        weights = devices * np.array([score for _, score in trusted])
        mean = weights @ rows_of(clipped_to_median(means)) / weights.sum()
        return scaled_to_sum(means, mean, int(devices.sum()))
