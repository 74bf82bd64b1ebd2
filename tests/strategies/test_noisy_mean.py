"""Noise without a secure sum: how much there is, who adds it, and what an aggregate says about it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedoel.protocol.experience import Contribution, ExperienceVector, VectorSpec
from fedoel.protocol.messages import reply_to_records
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.simulations.grid import InProcessGrid, server_identity
from fedoel.strategies.mean import BudgetStrategy, CentralMean, LocalMean
from fedoel.strategies.server_side import ServerSide

from .conftest import Ledger

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
    assert (aggregate.cohort, spent) == (DEVICES, []), "it was paid for before anybody was asked"
    assert aggregate.noise == plan.variance("gradient", DEVICES)
    assert np.allclose(aggregate.vector.gradient, np.sum([each.vector.gradient for each in sent(0.01)], axis=0))


def test_noise_of_the_devices_is_paid_for_before_a_device_is_asked_and_once_in_an_exchange() -> None:
    spent, when = list[int](), list[list[int]]()
    app, safeguards = ClientApp(), built(LocalMean, 1.0, spent)[0].server.safeguards
    more = {"noisy": True, "secret": 0, "log": None, "notice": None, "deployed": False}
    vars(safeguards).update(more, chance=lambda: 1.0, releasable=bool, check_budget=lambda: None)

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        when.append(list(spent))
        return Message(reply_to_records(sent(0.01)[0].vector), reply_to=message)

    server = Ledger(SPEC, safeguards)
    with server_identity():
        LocalMean(cast(ServerSide, server), exchanges=2).start(InProcessGrid(app, DEVICES, {}), num_rounds=2)
    assert server.traffic[0].accepted == DEVICES and spent == [1, 1, 2, 2]
    assert sorted(when) == sorted([[1], [1, 1], [1, 1, 2], [1, 1, 2, 2]] * DEVICES)
