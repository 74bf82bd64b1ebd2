"""Noise follows the distribution it claims, and privacy plans are consistent."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.errors import PrivacyError
from fedoel.protocol.privacy.discrete import discrete_gaussian
from fedoel.protocol.privacy.plan import Part, PrivacyPlan

ONE = (Part("gradient", 64, 2.0, 1.0),)
TWO = (Part("gradient", 64, 2.0, 0.8), Part("fisher", 32, 10.0, 0.6))


@pytest.mark.parametrize("variance", [Fraction(1, 3), Fraction(1), Fraction(25, 2)])
def test_samples_follow_the_discrete_gaussian(variance: Fraction) -> None:
    """Pearson's statistic, over values expected at least five times, is below its 1 - 1e-6 quantile."""
    count, below = 20_000, random.Random(7).randrange
    samples = discrete_gaussian(variance, count, below)
    support = np.arange(-60, 61)
    weights = np.exp(-(support**2) / (2 * float(variance)))
    expected = count * weights / weights.sum()
    kept = expected >= 5
    observed = np.array([(samples == value).sum() for value in support[kept]])
    statistic = float(((observed - expected[kept]) ** 2 / expected[kept]).sum())
    freedom = int(kept.sum()) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 15


def test_no_variance_is_no_noise() -> None:
    assert not discrete_gaussian(Fraction(0), 5).any()


def test_noise_of_the_sum_is_what_was_planned() -> None:
    """The noise of `minimum` devices has the standard deviation that the noise multiplier states."""
    plan, below = PrivacyPlan.make(ONE, 25, 20, 1.5), random.Random(3).randrange
    zero = {"gradient": np.zeros(64)}
    sums = np.stack([sum(plan.encode(zero, below) for _ in range(20)) for _ in range(30)])
    wanted = 1.5 * plan.bound
    assert float(sums.std()) == pytest.approx(wanted, rel=0.06)
    assert plan.variance("gradient", 20) == pytest.approx((1.5 * 2.0 * plan.bound / plan.steps) ** 2, rel=1e-3)


@pytest.mark.parametrize("parts", [ONE, TWO])
@pytest.mark.parametrize("cohort", [3, 100, 5000])
def test_sums_are_decoded(parts: tuple[Part, ...], cohort: int) -> None:
    plan, below = PrivacyPlan.make(parts, cohort, max(1, cohort // 2), 0.0), random.Random(1).randrange
    rng = np.random.default_rng(0)
    vectors = [{part.name: rng.normal(size=part.size) / 10 for part in parts} for _ in range(3)]
    total = sum(plan.encode(vector, below) for vector in vectors)
    cells: np.ndarray[Any, np.dtype[Any]] = np.asarray(total).astype(np.uint16 if plan.bits == 16 else np.uint32)
    for part in parts:
        exact = sum(vector[part.name] for vector in vectors)
        step = part.norm / part.weight / plan.steps
        assert np.abs(plan.decode(cells)[part.name] - exact).max() <= 3 * step


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=64, max_size=64), cohort=st.integers(2, 3000))
@settings(max_examples=60, deadline=None)
def test_quantised_vectors_stay_within_the_bound(values: list[float], cohort: int) -> None:
    plan = PrivacyPlan.make(ONE, cohort, cohort, 1.0)
    whole = plan.quantised({"gradient": np.array(values)}, random.Random(0).randrange)
    assert float(np.linalg.norm(whole.astype(float))) <= plan.bound


def test_a_cell_that_all_devices_fill_does_not_wrap() -> None:
    plan = PrivacyPlan.make(ONE, 300, 200, 1.2)
    most = np.zeros(64)
    most[0] = 1e9
    total = sum(plan.encode({"gradient": most}, random.Random(device).randrange) for device in range(300))
    decoded = plan.decode(np.asarray(total).astype(np.uint16))["gradient"]
    assert decoded[0] == pytest.approx(300 * 2.0, abs=5 * plan.variance("gradient", 300) ** 0.5)
    assert plan.wrap_probability <= 2.0**-40


def test_cells_are_wider_for_large_cohorts() -> None:
    assert PrivacyPlan.make(ONE, 100, 80, 1.0).bits == 16
    assert PrivacyPlan.make(ONE, 5000, 4000, 1.0).bits == 32


def test_the_sum_of_discrete_gaussians_is_nearly_one() -> None:
    plan = PrivacyPlan.make(ONE, 100, 80, 1.3)
    assert plan.discreteness_loss < 1e-9 and float(plan.share_variance) ** 0.5 > 5


def test_rounding_is_unbiased() -> None:
    plan, below = PrivacyPlan.make(ONE, 100, 80, 1.0), random.Random(5).randrange
    value = np.full(64, 0.4 / plan.steps)
    mean = np.mean([plan.quantised({"gradient": value}, below) for _ in range(200)])
    assert mean == pytest.approx(0.2, abs=0.03)  # norm 2 becomes `steps` steps


def test_a_rounding_beyond_the_bound_is_drawn_again() -> None:
    plan = PrivacyPlan.make(ONE, 100, 80, 1.0)
    draws = iter([0] * 64 + [2**32 - 1] * 64)  # all up, which is longer than the bound, and then all down
    value = 2.0 / 8 * (1 - 1e-6)
    assert (plan.quantised({"gradient": np.full(64, value)}, lambda _: next(draws)) == plan.steps // 8).all()
    assert 8 * (plan.steps // 8 + 1) > plan.bound


def test_a_part_has_its_weight_in_the_joint_norm() -> None:
    plan = PrivacyPlan.make(TWO, 10, 8, 0.0)
    longest = {part.name: np.eye(part.size)[0] * 100 for part in TWO}
    whole = plan.quantised(longest)
    assert np.abs(whole[[0, 64]] - plan.steps * np.array([0.8, 0.6])).max() <= 0.5 and np.count_nonzero(whole) == 2


@pytest.mark.parametrize("parts", [ONE, TWO])
def test_bounds_of_a_plan_are_those_of_the_paper(parts: tuple[Part, ...]) -> None:
    """Kairouz et al. 2021, arXiv 2102.06387: the norm after rounding (section 4), and ten times the sum of lemma 15."""
    cells, cohort, minimum = sum(part.size for part in parts), 4, 3
    plan = PrivacyPlan(parts, cohort, minimum, 2e-4, 16)
    c, root = plan.steps, cells**0.5
    assert plan.bound**2 - c**2 == pytest.approx(cells / 4 + c + root / 2)
    exact = (plan.noise_multiplier * plan.bound) ** 2 / minimum
    share = float(plan.share_variance)
    assert exact <= share < exact + 1 / 1024
    lemma = [np.exp(-2 * np.pi**2 * share * k / (k + 1)) for k in (1, 2, 3)]
    assert plan.discreteness_loss == pytest.approx(10 * cells * sum(lemma))
    for part in parts:
        step = part.norm / part.weight / plan.steps
        assert plan.variance(part.name, 5) == pytest.approx(5 * share * step**2)


def test_the_chance_of_wrapping_is_that_of_a_gaussian_tail_beyond_what_everybody_can_fill() -> None:
    plan = PrivacyPlan.make(ONE, 100, 80, 1.3)
    spread, room = (100 * float(plan.share_variance)) ** 0.5, 2**15 - 1 - 100 * (plan.steps + 1)
    assert plan.wrap_probability == pytest.approx(2 * 64 * np.exp(-((room / spread) ** 2) / 2), rel=1e-6, abs=0)
    assert 2.0**-150 < plan.wrap_probability <= 2.0**-40  # no step more than needed is given away


@pytest.mark.parametrize(
    "change",
    [
        {"cohort": 3, "minimum": 4}, {"minimum": 0}, {"noise_multiplier": -1.0}, {"noise_multiplier": 1e6}, {"bits": 8},
        {"parts": []}, {"parts": [{"name": "gradient", "size": 3, "norm": 1.0, "weight": 0.5}]},
        {"parts": [{"name": "gradient", "size": 0, "norm": 1.0, "weight": 1.0}]}, {"cohort": 40_000}, {"more": 1},
    ],
)  # fmt: skip
def test_inconsistent_plans_are_refused(change: dict[str, object]) -> None:
    plan = PrivacyPlan.make(ONE, 10, 8, 1.0)
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    with pytest.raises(PrivacyError):
        PrivacyPlan.from_json(json.dumps(json.loads(plan.to_json()) | change))


@pytest.mark.parametrize("values", [np.zeros(63), np.full(64, np.nan)])
def test_vectors_of_the_wrong_size_are_refused(values: np.ndarray) -> None:
    with pytest.raises(PrivacyError, match="does not fit"):
        PrivacyPlan.make(ONE, 10, 8, 1.0).encode({"gradient": values})
