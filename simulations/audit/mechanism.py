"""One-run audit of the release mechanism with canaries.

A canary is an extra device with a coordinate of its own, included in a release with probability one half. It sends ten
times the clipping norm and adds no noise, which makes it as visible as possible. The noise is that of the plan's
minimum number of devices. Two releases are made: noise that is reused cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...protocol.privacy.plan import Integers, Part, PrivacyPlan
from ...protocol.secagg.masks import cell_type
from ...server.accounting import Release, epsilon_of
from .bounds import gaussian_bound, guess_bound

Floats = NDArray[np.float64]
LOUD = 10.0


class Mechanism(Protocol):
    """The mechanism under audit, separate from its plan so that deviations from the plan are found."""

    def contribution(self, values: Mapping[str, Floats]) -> Integers:
        """Return what a device's vector adds to the sum, without noise."""
        ...

    def noise(self) -> Integers:
        """Return the noise of one device."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedMechanism:
    """The mechanism that devices run."""

    plan: PrivacyPlan

    def contribution(self, values: Mapping[str, Floats]) -> Integers:
        return self.plan.quantised(values)

    def noise(self) -> Integers:
        return self.plan.noise()


@dataclass(frozen=True, slots=True)
class Bound:
    """Result of one attack: two lower bounds on epsilon, and the promised epsilon for the same number of releases."""

    attack: str
    claimed: float
    guesses: float
    gaussian: float

    @property
    def holds(self) -> bool:
        """Whether both bounds are at most the promised epsilon."""
        return max(self.guesses, self.gaussian) <= self.claimed


def audited(plan: PrivacyPlan, cells: int) -> PrivacyPlan:
    """Return the plan for a vector with one coordinate per canary, in a single part."""
    return replace(plan, parts=(Part("gradient", cells, plan.parts[0].norm, 1.0),), bits=32)


def audit_mechanism(plan: PrivacyPlan, mechanism: Mechanism, delta: float, confidence: float, seed: int) -> list[Bound]:
    """Make two releases, and attack the first one and the difference of both."""
    rng = np.random.default_rng(seed)
    inside = rng.random((2, plan.cells)) < 0.5
    norm = plan.parts[0].norm
    releases = np.stack([_release(plan, mechanism, included) for included in inside]) / norm
    one, two = (epsilon_of(Release(plan.noise_multiplier, 1, 1), count, delta) for count in (1, 2))
    differs = inside[0] != inside[1]
    return [
        _attack("one release", one, releases[0] - 0.5, inside[0], delta, confidence),
        _attack(
            "difference of two releases",
            two,
            (releases[0] - releases[1])[differs],
            inside[0][differs],
            delta,
            confidence,
        ),
    ]


def _attack(
    name: str, claimed: float, scores: Floats, inside: NDArray[np.bool_], delta: float, confidence: float
) -> Bound:
    bounds = (attack(scores, inside, delta, confidence) for attack in (guess_bound, gaussian_bound))
    return Bound(name, claimed, *bounds)


def _release(plan: PrivacyPlan, mechanism: Mechanism, inside: NDArray[np.bool_]) -> Floats:
    total = np.zeros(plan.cells, dtype=np.int64)
    for _ in range(plan.minimum):
        total += mechanism.noise()
    for canary in np.flatnonzero(inside):
        values = np.zeros(plan.cells)
        values[canary] = LOUD * plan.parts[0].norm
        total += mechanism.contribution({"gradient": values})
    return plan.decode(total.astype(cell_type(plan.bits)))["gradient"]
