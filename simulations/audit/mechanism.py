"""The canaries of one run: extra devices, each with a direction of its own, in half of them at random.

A canary sends ten times what it may, and adds no noise, as a device would that wants to be found. All noise is that of
the fewest devices that a plan allows. Two releases are made, so that noise that is used twice cancels and is found.
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
    """What turns devices' vectors into a released sum; audits take it apart from the plan that it claims to follow."""

    def contribution(self, values: Mapping[str, Floats]) -> Integers:
        """What a device's vector adds to the sum, without noise."""
        ...

    def noise(self) -> Integers:
        """The noise of one device."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedMechanism:
    """The real one."""

    plan: PrivacyPlan

    def contribution(self, values: Mapping[str, Floats]) -> Integers:
        return self.plan.quantised(values)

    def noise(self) -> Integers:
        return self.plan.noise()


@dataclass(frozen=True, slots=True)
class Bound:
    """What one attack found: two lower bounds of epsilon, and what was promised for as many releases."""

    attack: str
    claimed: float
    guesses: float
    gaussian: float

    @property
    def holds(self) -> bool:
        """Whether neither bound is above the promise."""
        return max(self.guesses, self.gaussian) <= self.claimed


def audited(plan: PrivacyPlan, cells: int) -> PrivacyPlan:
    """Return the plan on as many cells as there are canaries, all of the norm in one part."""
    return replace(plan, parts=(Part("gradient", cells, plan.parts[0].norm, 1.0),), bits=32)


def audit_mechanism(plan: PrivacyPlan, mechanism: Mechanism, delta: float, confidence: float, seed: int) -> list[Bound]:
    """Release twice and attack each release, and the difference of both."""
    rng = np.random.default_rng(seed)
    inside = rng.random((2, plan.cells)) < 0.5
    norm = plan.parts[0].norm
    seen = np.stack([_release(plan, mechanism, each) for each in inside]) / norm
    one, two = (epsilon_of(Release(plan.noise_multiplier, 1, 1), count, delta) for count in (1, 2))
    differs = inside[0] != inside[1]
    return [
        _attack("one release", one, seen[0] - 0.5, inside[0], delta, confidence),
        _attack("difference of two releases", two, (seen[0] - seen[1])[differs], inside[0][differs], delta, confidence),
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
