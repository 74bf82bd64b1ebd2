"""The natural step from an aggregate: values worked out by hand, its limits, and what added noise does to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.natural_step import natural_step
from fedoel.protocol.config import ContextConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec

CONFIG = ContextConfig(step=10.0, damping=0.5, noise=0.25)
GRADIENTS, FISHERS, NOISES = st.floats(-50, 50), st.floats(0, 100), st.floats(0, 1e4)


def steps(gradients: list[float], fishers: list[float], noise: float, config: ContextConfig = CONFIG) -> Vector:
    """The step from an aggregate of these coordinates."""
    spec = VectorSpec("tactics", len(gradients), "words", "v1", ("coin",), 1, 2.0, 4.0)
    counters = [0.0] * (spec.size - 2 * spec.dimension)
    vector = ExperienceVector.unchecked(spec, np.array([*gradients, *fishers, *counters], np.float32))
    full = natural_step(Aggregate(vector, 4, noise), config)
    assert full.shape == (spec.dimension,) and full.dtype == np.float32
    return full


def step(gradient: float, fisher: float, noise: float = 0.0, config: ContextConfig = CONFIG) -> float:
    """The step of a single coordinate."""
    return float(steps([gradient], [fisher], noise, config)[0])


@pytest.mark.parametrize(
    ("gradient", "fisher", "noise", "expected"),
    [
        # Chance is sigma^2 F = 0.25 * 8 = 2: eta g^2/(g^2 + 2) * g / (8 + 0.5)
        (2.0, 8.0, 0.0, 10 * (4 / 6) * 2 / 8.5),
        (-2.0, 8.0, 0.0, -10 * (4 / 6) * 2 / 8.5),
        # Added noise of variance 6 makes chance 2 + 6 = 8, four times as large, and lambda 4 * 0.5 = 2.
        (2.0, 8.0, 6.0, 10 * (4 / 12) * 2 / 10),
        (1.0, 4.0, 1.0, 10 * (1 / 3) * 1 / 5),
        (0.0, 8.0, 6.0, 0.0),
        # Without noise of either kind there is no chance: s = 1.
        (3.0, 0.0, 0.0, 10 * 3 / 0.5),
    ],
)
def test_the_step_is_the_one_worked_out_by_hand(gradient: float, fisher: float, noise: float, expected: float) -> None:
    assert step(gradient, fisher, noise) == pytest.approx(expected)


def test_every_setting_scales_the_step_as_the_formula_says() -> None:
    assert step(2, 8, 6, replace(CONFIG, step=5.0)) == pytest.approx(5 * (4 / 12) * 2 / 10)
    assert step(2, 8, 6, replace(CONFIG, damping=2.0)) == pytest.approx(10 * (4 / 12) * 2 / (8 + 4 * 2.0))
    assert step(2, 8, 6, replace(CONFIG, noise=0.75)) == pytest.approx(10 * (4 / 16) * 2 / (8 + 2 * 0.5))


@given(GRADIENTS, st.floats(0.01, 100), NOISES)
def test_without_the_shrinkage_it_is_the_most_likely_weight(gradient: float, fisher: float, noise: float) -> None:
    """Of g = F w + chance, where w has the prior variance sigma^2 / lambda: a least-squares problem in two rows."""
    chance = CONFIG.noise * fisher + noise
    rows = np.array([[fisher / chance**0.5], [(CONFIG.damping / CONFIG.noise) ** 0.5]])
    likeliest = float(np.linalg.lstsq(rows, np.array([gradient / chance**0.5, 0.0]), rcond=None)[0][0])
    shrink = gradient**2 / (gradient**2 + chance)
    assert step(gradient, fisher, noise) == pytest.approx(CONFIG.step * shrink * likeliest, rel=1e-4, abs=1e-5)


@given(GRADIENTS, st.floats(0.01, 100))
def test_noise_that_vanishes_leaves_the_step_without_noise(gradient: float, fisher: float) -> None:
    assert step(gradient, fisher, 1e-12) == pytest.approx(step(gradient, fisher), rel=1e-4, abs=1e-6)


@given(GRADIENTS, st.floats(0.1, 1e4))
def test_a_coordinate_without_fisher_information_gets_no_step_from_a_noised_sum(gradient: float, noise: float) -> None:
    assert abs(step(gradient, 0.0, noise)) < 1e-4


@given(GRADIENTS, FISHERS, NOISES, NOISES)
def test_more_noise_never_lengthens_a_step_and_never_turns_it(
    gradient: float, fisher: float, noise: float, more: float
) -> None:
    shorter, longer = step(gradient, fisher, noise + more), step(gradient, fisher, noise)
    assert abs(shorter) <= abs(longer) * (1 + 1e-6)
    assert shorter * gradient >= 0


@given(GRADIENTS, FISHERS, NOISES)
def test_every_coordinate_steps_by_itself_and_finitely(gradient: float, fisher: float, noise: float) -> None:
    both = steps([gradient, 2.0], [fisher, 8.0], noise)
    assert np.isfinite(both).all()
    assert both.tolist() == [step(gradient, fisher, noise), step(2.0, 8.0, noise)]
