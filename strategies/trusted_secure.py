"""FLTrust (Cao et al. 2020, arXiv 2012.13995) over secure sums of groups instead of single vectors.

A group with a malicious device is less aligned with the server's own gradient and gets a lower weight. The number of
malicious devices need not be known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.experience import Aggregate, Contribution, ExperienceVector
from .robust import rows_of, scaled_to_sum
from .secure_groups import SecureGroups, group_mean
from .secure_mean import Tally
from .trusted import trust_scores, within_median


class TrustedSecure(SecureGroups):
    """Weighted mean of the groups' means: each is clipped to the median norm and weighted by size and trust score.

    The trust score is that of `Trusted`, for a group's sum. Options are those of `SecureGroups`.
    """

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Average the trusted groups, and scale to the sum over their devices; None if no group is trusted."""
        reference = self.server.rounds.reference(*self.place(server_round)).gradient
        groups = self.within_norm_bound(sums)
        trust = trust_scores([group.vector for group in groups], reference)
        trusted = [(group, score) for group, score in zip(groups, trust, strict=True) if score > 0]
        self.record_excluded(len(sums) - len(trusted), len(sums), tally)
        return _weighted_mean(*zip(*trusted, strict=True)) if trusted else None


def _weighted_mean(groups: Sequence[Aggregate], trust: Sequence[float]) -> Aggregate:
    means = [
        Contribution(index, ExperienceVector.from_parts(group.vector.spec, group_mean(group)))
        for index, group in enumerate(groups)
    ]
    devices = np.array([group.cohort for group in groups])
    weights = devices * np.asarray(trust)
    return scaled_to_sum(means, weights @ rows_of(within_median(means)) / weights.sum(), int(devices.sum()))
