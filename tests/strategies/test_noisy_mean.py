"""Noise without a secure sum: how much there is, who adds it, and what an aggregate says about it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from fedoel.protocol.experience import Contribution, ExperienceVector, VectorSpec
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.strategies.mean import BudgetStrategy, CentralMean, LocalMean
from fedoel.strategies.server_side import ServerSide

SPEC = VectorSpec("tactics", 400, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
DEVICES, DRAWN = 6, 7  # that sent a vector, and that are drawn on average


def built(kind: type[BudgetStrategy], noise: float, spent: list[int]) -> tuple[BudgetStrategy, PrivacyPlan]:
    """A strategy in its third cycle, and its plan."""
    parts = Part("gradient", 400, 5.0, 0.8), Part("fisher", 400, 20.0, 0.6)
    plan = PrivacyPlan.make(parts, 8, 4, noise)
    safeguards = SimpleNamespace(plan=lambda spec: plan, spend=spent.append, sample=lambda spec: DRAWN)
    strategy = kind(cast(ServerSide, SimpleNamespace(safeguards=safeguards)))
    strategy.current = 3, 1
    return strategy, plan


def sent(scale: float) -> list[Contribution]:
    row = np.linspace(0, 1, SPEC.size, dtype=np.float32)
    return [Contribution(n, ExperienceVector.unchecked(SPEC, (n + 1) * scale * row).clipped()) for n in range(DEVICES)]


def test_a_trusted_server_adds_one_share_of_noise_to_the_sum_and_says_its_variance() -> None:
    spent: list[int] = []
    strategy, plan = built(CentralMean, 1.0, spent)
    aggregate = strategy.aggregate(sent(0.0))
    assert (aggregate.cohort, spent) == (DRAWN, [3]), "the exact number would tell who took part"
    assert aggregate.noise == plan.variance("gradient", 1)
    assert float(aggregate.vector.gradient.std()) == pytest.approx(aggregate.noise**0.5, rel=0.2)
    exact, _ = built(CentralMean, 0.0, spent)
    expected = np.sum([each.vector.gradient for each in sent(0.01)], axis=0)
    assert np.allclose(exact.aggregate(sent(0.01)).vector.gradient, expected, atol=0.05)


def test_what_devices_have_noised_themselves_is_added_up_with_a_share_of_each() -> None:
    spent: list[int] = []
    strategy, plan = built(LocalMean, 1.0, spent)
    aggregate = strategy.aggregate(sent(0.01))
    assert (aggregate.cohort, spent) == (DEVICES, [3])
    assert aggregate.noise == plan.variance("gradient", DEVICES)
    assert np.allclose(aggregate.vector.gradient, np.sum([each.vector.gradient for each in sent(0.01)], axis=0))
