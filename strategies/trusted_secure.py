"""Trust without seeing anybody: groups count by how far their secure sums point where the server's own experience does.

FLTrust (Cao et al. 2020, arXiv 2012.13995) over secure sums of groups. A group that a liar has spoilt tells less and
therefore counts less, without a choice of how many may lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.experience import Aggregate, Contribution, ExperienceVector
from .robust import rows_of, spread
from .secure_groups import SecureGroups, mean_device
from .secure_mean import Tally
from .trusted import trust_in, within_median


class TrustedSecure(SecureGroups):
    """Mean of the groups' mean devices, each as long as the median group at most and weighed by trust.

    Trust is the cosine of a group's gradient with the server's own, from public games; a group that points the other
    way does not count. Public games must be like private ones for this. Options: those of `SecureGroups`.
    """

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Weigh the groups, on the scale of the sum over those that count; None if none does."""
        own = self.server.rounds.reference(*self.place(server_round)).gradient
        groups = self.standing_in(sums)
        trust = trust_in([group.vector for group in groups], own)
        counts = [(group, each) for group, each in zip(groups, trust, strict=True) if each > 0]
        self.left_out(len(sums) - len(counts), len(sums), tally)
        return _combined(*zip(*counts, strict=True)) if counts else None


def _combined(groups: Sequence[Aggregate], trust: Sequence[float]) -> Aggregate:
    means = [
        Contribution(place, ExperienceVector.from_parts(group.vector.spec, mean_device(group)))
        for place, group in enumerate(groups)
    ]
    devices = np.array([group.cohort for group in groups])
    weights = devices * np.asarray(trust)
    return spread(means, weights @ rows_of(within_median(means)) / weights.sum(), int(devices.sum()))
