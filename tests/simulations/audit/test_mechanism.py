"""The audit's lower bounds: below what is promised, not far below, and above it as soon as something is broken."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.protocol.privacy.discrete import discrete_gaussian
from fedoel.protocol.privacy.plan import Integers, Part, PrivacyPlan
from fedoel.server.accounting import Release, epsilon_of
from fedoel.simulations.audit.mechanism import (
    LARGEST,
    Mechanism,
    audit_mechanism,
    audited,
    epsilon_of_distance,
    gaussian_bound,
    guess_bound,
)

DELTA, CONFIDENCE = 1e-6, 0.999
# Few devices, so that their noise is sampled quickly: the sum of it is the same.
PLAN = audited(PrivacyPlan.make((Part("gradient", 64, 2.0, 1.0),), 8, 4, 1.27), 1024)


@dataclass(frozen=True, slots=True)
class Repeatable(Mechanism):
    """The real one with the same noise every time: under real randomness one bound in some fifty is too low."""

    source: random.Random

    def noise(self) -> Integers:
        return self.plan.noise(self.source.randrange)


@dataclass(frozen=True, slots=True)
class NoClipping(Mechanism):
    """Planted: a device's vector counts as it is."""

    def contribution(self, values: Mapping[str, NDArray[np.float64]]) -> Integers:
        part = self.plan.parts[0]
        return np.rint(values["gradient"] / part.norm * self.plan.steps).astype(np.int64)


@dataclass(frozen=True, slots=True)
class HalfNoise(Mechanism):
    """Planted: half of the standard deviation."""

    def noise(self) -> Integers:
        return discrete_gaussian(self.plan.share_variance / 4, self.plan.cells)


@dataclass(frozen=True, slots=True)
class ReusedSeed(Mechanism):
    """Planted: every release has the same noise."""

    calls: count[int] = field(default_factory=lambda: count(1))

    def noise(self) -> Integers:
        return self.plan.noise(random.Random(next(self.calls) % self.plan.minimum).randrange)


def test_the_real_mechanism_keeps_its_promise() -> None:
    bounds = audit_mechanism(PLAN, Repeatable(PLAN, random.Random(0)), DELTA, CONFIDENCE, seed=0)
    assert all(bound.holds for bound in bounds)
    assert bounds[0].gaussian >= 0.5 * bounds[0].claimed


@pytest.mark.parametrize("broken", [NoClipping, HalfNoise, ReusedSeed])
def test_planted_bugs_are_found(broken: type) -> None:
    bounds = audit_mechanism(PLAN, broken(PLAN), DELTA, CONFIDENCE, seed=0)
    assert not all(bound.holds for bound in bounds)


@pytest.mark.parametrize("multiplier", [0.7, 1.27, 2.4])
def test_twenty_audits_of_the_plain_gaussian(multiplier: float) -> None:
    """Never above the claim, and at least three fifths of it with 16,384 canaries."""
    rng, claimed = np.random.default_rng(0), epsilon_of(Release(multiplier, 1, 1), 1, DELTA)
    found = []
    for _ in range(20):
        inside = rng.random(16_384) < 0.5
        scores = inside - 0.5 + multiplier * rng.normal(size=16_384)
        found.append(max(bound(scores, inside, DELTA, CONFIDENCE) for bound in (guess_bound, gaussian_bound)))
    assert max(found) <= claimed
    assert min(found) >= 0.6 * claimed


def test_scores_that_say_nothing_give_no_bound() -> None:
    rng = np.random.default_rng(0)
    inside, scores = rng.random(500) < 0.5, rng.normal(size=500)
    assert guess_bound(scores, inside, DELTA, CONFIDENCE) == 0 == gaussian_bound(scores, inside, DELTA, CONFIDENCE)


def test_certain_scores_give_a_large_bound() -> None:
    inside = np.arange(500) % 2 == 0
    assert guess_bound(inside - 0.5, inside, DELTA, CONFIDENCE) > 2
    assert gaussian_bound(inside - 0.5, inside, DELTA, CONFIDENCE) == LARGEST


@pytest.mark.parametrize(("multiplier", "epsilon"), [(1.27, 3.9), (4.01, 1.05)])
def test_distances_are_epsilons(multiplier: float, epsilon: float) -> None:
    """The exact epsilon of one Gaussian release, a little below what Renyi accounting says."""
    exact = epsilon_of_distance(1 / multiplier, DELTA)
    assert exact == pytest.approx(epsilon, rel=0.08)
    assert exact <= epsilon_of(Release(multiplier, 1, 1), 1, DELTA)


def test_canaries_are_as_loud_as_any_device_may_be() -> None:
    """Ten times the norm counts as once."""
    whole = PLAN.quantised({"gradient": np.eye(1, PLAN.cells, 0)[0] * 20.0})
    assert abs(int(whole[0]) - PLAN.steps) <= 1
