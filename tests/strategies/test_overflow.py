"""Liars send numbers so large that no honest sum survives them: their vectors are refused, not the cohort's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedoel.protocol.amounts import games_of_client, most_games
from fedoel.protocol.errors import VectorError
from fedoel.protocol.experience import Counters, ExperienceVector, Vector, VectorSpec
from fedoel.protocol.messages import PlayRequest, reply_to_records
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.trials import TrialTerms
from fedoel.simulations.grid import InProcessGrid, server_identity
from fedoel.strategies.experience import ExperienceStrategy
from fedoel.strategies.mean import Mean
from fedoel.strategies.registry import load_strategy
from fedoel.strategies.replies import BAD_VECTOR

from .conftest import Ledger

SPEC = VectorSpec("tactics", 6, "vocabulary", "v1", ("coin", "lake"), 4, 50.0, 200.0)
CLIENTS, LIARS, GAMES = 20, 2, 8
LARGEST = np.finfo(np.float32).max
PLAN = PrivacyPlan.make((Part("gradient", 6, 50.0, 1.0),), CLIENTS, 1, 1.0)
STRATEGIES = (
    "mean", "trimmed-mean", "median", "krum", "multi-krum", "norm-bounded", "trusted", "trusted-trimmed", "buffered",
)  # fmt: skip


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


class Server(Ledger):
    """Its games are those of the honest devices."""

    plan = ""

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        return PlayRequest(cycle, exchange, self.spec, None, {}, plan=self.plan)

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        return played(0)


def played(client: int) -> ExperienceVector:
    """What an honest device sends: eight games of four turns each."""
    rng = np.random.default_rng(client)
    gradient = (rng.normal(size=SPEC.dimension) + 1).astype(np.float32)
    counters = np.zeros(SPEC.counters_shape, np.float32)
    counters[client % 2, :5] = GAMES, 3, 4 * GAMES, 700 * GAMES, 4.5
    counters[client % 2, 5:9], counters[client % 2, 9:] = 6.0, GAMES
    return ExperienceVector(SPEC, gradient, np.abs(gradient), Counters(counters))


def noised(client: int) -> ExperienceVector:
    """What an honest device sends under a plan: one part, in whole steps, and nothing else."""
    cells = PLAN.encode(played(client).parts()).astype("<u2" if PLAN.bits == 16 else "<u4")
    return ExperienceVector.from_parts(SPEC, PLAN.decode(cells))


def changed(vector: ExperienceVector, index: int) -> ExperienceVector:
    values = vector.to_array()
    values[index] = LARGEST
    return ExperienceVector.unchecked(SPEC, values)


def answered(strategy: ExperienceStrategy, honest: Any, index: int, action: str = "experience") -> None:
    """Run an exchange in which two of twenty devices put the largest number at an index of their vectors."""
    app = ClientApp()

    @app.train(action)
    def experience(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        vector = honest(client)
        return Message(reply_to_records(changed(vector, index) if client < LIARS else vector), reply_to=message)

    strategy.start(InProcessGrid(app, CLIENTS, {}), num_rounds=1)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("column", [0, 3, 4, 5, 9])
def test_counters_that_nobody_can_have_are_refused_and_the_cohort_is_not(name: str, column: int) -> None:
    server = Server(SPEC, most_games=GAMES)
    options = {"buffer_size": CLIENTS - LIARS} if name == "buffered" else {}
    answered(load_strategy(name)(server, **options), played, 2 * SPEC.dimension + column)
    [aggregate], [traffic] = server.aggregates, server.traffic
    assert aggregate is not None and aggregate.finite
    assert (traffic.accepted, traffic.refused) == (CLIENTS - LIARS, {BAD_VECTOR: LIARS})


@pytest.mark.parametrize("index", [0, 6, 12, 17])
def test_a_vector_with_noise_is_refused_where_no_noise_can_make_it_so_large(index: int) -> None:
    """An entry of the gradient, and entries of the Fisher diagonal and of the counters, which this plan leaves out."""
    server = Server(SPEC, most_games=GAMES)
    server.plan = PLAN.to_json()
    answered(Mean(server), noised, index)
    [aggregate], [traffic] = server.aggregates, server.traffic
    assert aggregate is not None and aggregate.finite
    assert (traffic.accepted, traffic.refused) == (CLIENTS - LIARS, {BAD_VECTOR: LIARS})


def counters(column: int, value: float, family: int = 0) -> Vector:
    values = np.zeros(SPEC.counters_shape, np.float32)
    values[family, column] = value
    return values


def test_counters_are_bounded_by_games_and_steps() -> None:
    turns = GAMES * SPEC.horizon
    bounds = {0: GAMES, 1: GAMES, 2: turns, 3: turns * 2**20, 4: 2 * turns, 5: 2 * turns, 8: 2 * turns, 9: GAMES}
    for column, most in bounds.items():
        Counters(counters(column, most)).check(GAMES)
        for beyond in (counters(column, 1.01 * most), counters(column, most) + counters(column, 0.01 * most, family=1)):
            with pytest.raises(VectorError, match="larger than 8 games"):
                Counters(beyond).check(GAMES)


def test_an_answer_to_a_trial_counts_nothing() -> None:
    spec = TrialTerms(2, 2.0, True).spec("v1", ("coin",))
    app = ClientApp()

    @app.evaluate("trial")
    def trial(message: Message, context: Context) -> Message:
        values = np.zeros(spec.size, np.float32)
        values[-1] = LARGEST if int(context.node_config["partition-id"]) < LIARS else 0.0
        return Message(reply_to_records(ExperienceVector.unchecked(spec, values)), reply_to=message)

    strategy = Mean(Server(SPEC, most_games=GAMES))
    answer = strategy.trial(InProcessGrid(app, CLIENTS, {}), PlayRequest(1, 1, spec, None, {}), 1)
    assert answer is not None and answer.cohort == CLIENTS - LIARS


def test_no_client_plays_more_games_than_the_most() -> None:
    assert most_games(6, "equal") == 6
    most = most_games(6, "lognormal:1.0")
    assert max(games_of_client(6, client, "lognormal:1.0", 0) for client in range(2000)) <= most
