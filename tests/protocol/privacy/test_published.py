"""What is published of a noisy sum says nothing about the size of its cohort but through the sum."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.privacy.published import public_factor, public_variance, with_public_noise

PARTS = (Part("gradient", 2000, 2.0, 0.8), Part("fisher", 2000, 10.0, 0.6))
SIZES = range(8, 13)
PUBLIC = PrivacyPlan.make(PARTS, 12, 8, 1.0)


@pytest.mark.parametrize("cohort", SIZES)
@pytest.mark.parametrize("dropped", [0, 1])
def test_the_noise_of_every_cohort_has_the_same_variance(cohort: int, dropped: int) -> None:
    plan, factor = PrivacyPlan.make(PARTS, cohort, int(cohort * 0.8), 1.0), public_factor(SIZES, 0.2)
    devices = cohort - dropped
    rng = np.random.default_rng(cohort)
    for part in PARTS:
        noise = np.asarray(math.sqrt(plan.variance(part.name, devices)) * rng.standard_normal(part.size), np.float64)
        filled = with_public_noise({part.name: noise}, plan, devices, PUBLIC, factor, rng)[part.name]
        assert filled.var() == pytest.approx(public_variance(PUBLIC, part.name, factor), rel=0.12)


def test_steps_of_a_plan_are_not_seen_in_what_is_published() -> None:
    """A decoded sum is a whole number of steps, whose length follows from the size of the cohort."""
    plan, factor, rng = PrivacyPlan.make(PARTS, 10, 8, 1.0), public_factor(SIZES, 0.2), np.random.default_rng(0)
    step = PARTS[0].norm / (PARTS[0].weight * plan.steps)
    whole = np.asarray(step * rng.integers(-500, 500, 2000), np.float64)
    assert np.allclose(whole / step, np.round(whole / step))
    filled = with_public_noise({"gradient": whole}, plan, 10, PUBLIC, factor, rng)["gradient"] / step
    phases = np.abs(np.exp(2j * np.pi * filled).mean())
    assert phases < 5 / np.sqrt(2000)


def test_the_factor_is_that_of_the_cohort_with_the_most_noise() -> None:
    assert public_factor([10, 20], 0.2) == pytest.approx(1.25, rel=0.04)
    assert public_factor([3, 10], 0.2) > public_factor([10], 0.2), "three devices, of whom two are enough"
    assert public_factor([], 0.2) > 1
