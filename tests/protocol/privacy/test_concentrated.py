"""A device's account of its own contributions agrees with the accountant of the server."""

from __future__ import annotations

import math

import pytest

from fedoel.protocol.privacy.concentrated import epsilon_of, rho_of
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.server.accounting import Release
from fedoel.server.accounting import epsilon_of as accountants


@pytest.mark.parametrize(("noise", "count"), [(0.5, 3), (1.27, 1), (2.83, 5), (4.01, 10), (20.0, 300)])
@pytest.mark.parametrize("delta", [1e-10, 1e-5])
def test_epsilon_is_that_of_the_accountant_without_amplification(noise: float, count: int, delta: float) -> None:
    expected = accountants(Release(noise, 10, 10), count, delta)
    found = epsilon_of(count * rho_of(noise), delta)
    assert found == pytest.approx(expected, rel=2e-3) and found <= expected * (1 + 1e-4)


def test_no_noise_has_no_epsilon_and_no_release_costs_none() -> None:
    assert epsilon_of(rho_of(0.0), 1e-6) == math.inf
    assert epsilon_of(0.0, 1e-6) == 0.0
    assert 2 * rho_of(1.0) == pytest.approx(rho_of(0.5**0.5))


def test_a_part_of_a_cohort_makes_a_part_of_the_noise() -> None:
    plan = PrivacyPlan.make((Part("gradient", 4, 1.0, 1.0),), 100, 80, 2.0)
    assert plan.noise_of(80) == plan.noise_of(100) == 2.0
    assert plan.noise_of(20) == 1.0 and plan.noise_of(1) == pytest.approx(2 / 80**0.5)
    assert plan.loss_of_sum(1) == 0.0 <= plan.loss_of_sum(100) == plan.discreteness_loss
