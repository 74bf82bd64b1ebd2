"""Trials over Flower's messages: whom a strategy asks, what it adds up, and what a private one pays for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fedoel.client import secure as client_secure
from fedoel.client.secure import answer_step, protected
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, VectorError
from fedoel.protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec
from fedoel.protocol.fleet.membership import keys_folder, simulated_membership
from fedoel.protocol.messages import PlayRequest, reply_to_records, request_from_records
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.secagg.masks import cell_type
from fedoel.protocol.secagg.messages import ACTIONS
from fedoel.protocol.trials import TrialTerms, sums_of, trial_vector
from fedoel.server.fleet import make_fleet
from fedoel.server.safeguards import RunSafeguards
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.strategies.experience import ExperienceStrategy
from fedoel.strategies.mean import Mean
from fedoel.strategies.registry import load_strategy

from .conftest import Ledger

CLIENTS = 8
SPEC = TrialTerms(2, 2.0, True).spec("v1", ("coin", "cooking"))
EXPERIENCE = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
Behaviour = Callable[[int, VectorSpec], ExperienceVector]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def answer(client: int, spec: VectorSpec) -> ExperienceVector:
    """Client 3 wins a game of cooking by 0.3 more than before, for example; all have lost a game of the coin."""
    merits = np.array([[0.5, 0.0], [0.0, client / 10]])
    won = np.array([[True, False], [False, client >= 4]])
    return trial_vector(spec, ["coin", "cooking"], merits, won)


def expected(clients: list[int], spec: VectorSpec = SPEC) -> Any:
    return np.sum([sums_of(answer(client, spec)) for client in clients], axis=0)


@dataclass
class Fleet:
    """Devices that answer trials, in plain or in secure sums; what they were sent is written down."""

    behaviour: Behaviour = answer
    config: RunConfig = field(default_factory=RunConfig)
    messages: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grid = InProcessGrid(self.app(), CLIENTS, {})
        self.asked = list[list[int]]()

    def app(self) -> ClientApp:
        app = ClientApp()
        app.evaluate("trial")(self.in_plain)
        for phase, action in ACTIONS.items():
            category, _, name = action.partition(".")
            (app.train if category == "train" else app.query)(name)(self.in_secret(phase))
        return app

    def in_plain(self, message: Message, context: Context) -> Message:
        client, request = self.note(message, context), request_from_records(message.content)
        vector = self.behaviour(client, request.spec)
        if request.plan:
            plan = PrivacyPlan.from_json(request.plan)
            vector = ExperienceVector.from_parts(request.spec, plan.decode(protected(vector, plan)))
        return Message(reply_to_records(vector), reply_to=message)

    def in_secret(self, phase: str) -> Callable[[Message, Context], Message]:
        def of_phase(message: Message, context: Context) -> Message:
            client, keys = self.note(message, context), keys_folder(self.config)
            member = simulated_membership(keys, client)
            records = answer_step(
                phase, message.content, context, member, lambda request, run: self.behaviour(client, request.spec)
            )
            return Message(records, reply_to=message)

        return of_phase

    def note(self, message: Message, context: Context) -> int:
        client = int(context.node_config["partition-id"])
        self.messages.append((message.metadata.message_type, client))
        return client

    def trial(self, strategy: ExperienceStrategy, request: PlayRequest, part: int = 1) -> Any:
        """Ask for a trial; also write down which clients were asked, in order of clients."""
        self.messages.clear()
        aggregate = strategy.trial(self.grid, request, part)
        self.asked.append(sorted({client for _, client in self.messages}))
        return aggregate


def trial(spec: VectorSpec = SPEC, cycle: int = 1, serial: int = 1, plan: str = "") -> PlayRequest:
    return PlayRequest(cycle, 2, spec, None, {}, candidate={"w": np.ones(2, np.float32)}, serial=serial, plan=plan)


def built(name: str, safeguards: Any = None, **settings: Any) -> ExperienceStrategy:
    server = Ledger(EXPERIENCE, safeguards) if safeguards else Ledger(EXPERIENCE)
    return load_strategy(name)(server, **settings)


@pytest.mark.parametrize("name", ["mean", "buffered", "momentum", "adam"])
def test_a_plain_strategy_adds_the_answers_up(name: str) -> None:
    """What one device can do to the sum is bounded by clipping."""
    fleet = Fleet()
    aggregate = fleet.trial(built(name), trial())
    assert aggregate.cohort == CLIENTS and aggregate.noise == 0
    assert np.allclose(sums_of(aggregate.vector), expected(list(range(CLIENTS))), atol=1e-2)
    assert set(fleet.messages) == {("evaluate.trial", client) for client in range(CLIENTS)}


@pytest.mark.parametrize("name", ["trimmed-mean", "median", "krum", "norm-bounded"])
def test_a_robust_strategy_leaves_out_the_largest_gains_and_losses(name: str) -> None:
    """Of eight answers one at either end; the others stand for all. A liar can only stand at an end."""

    def lies(client: int, spec: VectorSpec) -> ExperienceVector:
        if client == 0:
            return trial_vector(spec, ["coin", "coin"], np.array([[0.0, 0.0], [9.0, 9.0]]), np.ones((2, 2), bool))
        return answer(client, spec)

    honest, attacked = Fleet().trial(built(name), trial()), Fleet(lies).trial(built(name), trial())
    assert honest.cohort == attacked.cohort == CLIENTS
    assert np.allclose(sums_of(honest.vector), expected([1, 2, 3, 4, 5, 6]) * 8 / 6, atol=1e-2)
    assert np.allclose(sums_of(attacked.vector), expected([2, 3, 4, 5, 6, 7]) * 8 / 6, atol=1e-2)


def test_trials_go_through_flowers_own_rounds_of_evaluation() -> None:
    fleet, strategy = Fleet(), built("mean")
    assert list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), fleet.grid)) == []
    assert strategy.aggregate_evaluate(1, []) is None
    fleet.trial(strategy, trial())
    assert list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), fleet.grid)) == []


def test_the_parts_of_a_cycle_are_disjoint_and_cover_its_cohort() -> None:
    fleet, strategy = Fleet(), built("mean", fraction_train=0.75, seed=3, trial_parts=4)
    for cycle in (1, 2):
        for serial in (1, 2):  # of a context, and then of a candidate
            for part in (1, 2, 3, 4):
                aggregate = fleet.trial(strategy, trial(cycle=cycle, serial=serial), part)
                assert np.allclose(sums_of(aggregate.vector), expected(fleet.asked[-1]), atol=1e-2)
    parts = [fleet.asked[start : start + 4] for start in range(0, 16, 4)]
    assert parts[0] == parts[1] != parts[2] == parts[3]
    cohorts = [[client for part in of_cycle for client in part] for of_cycle in parts]
    assert all(len(cohort) == len(set(cohort)) == 6 for cohort in cohorts)
    trained = [
        [message.metadata.dst_node_id - FIRST_NODE_ID for message in _asked_for_experience(strategy, fleet, cycle)]
        for cycle in (1, 2)
    ]
    assert [sorted(cohort) for cohort in trained] == [sorted(cohorts[0]), sorted(cohorts[2])]


def _asked_for_experience(strategy: ExperienceStrategy, fleet: Fleet, cycle: int) -> list[Message]:
    return list(strategy.configure_train(cycle, ArrayRecord(), ConfigRecord(), fleet.grid))


def test_there_are_no_more_parts_than_devices() -> None:
    fleet, strategy = Fleet(), built("mean", fraction_train=0.25, trial_parts=4)
    assert [fleet.trial(strategy, trial(), part) is None for part in (1, 2, 3, 4)] == [False, False, True, True]
    assert [len(clients) for clients in fleet.asked] == [1, 1, 0, 0]


@pytest.mark.parametrize(("name", "nodes", "parts"), [("secure-mean", 15, [5, 5, 5]), ("secure-mean", 3, [3]),
    ("grouped-secure", 15, [15]), ("grouped-secure", 16, [8, 8]), ("mean", 3, [1, 1, 1])])  # fmt: skip
def test_where_devices_are_missing_a_secure_trial_has_fewer_parts_of_enough_devices(
    name: str, nodes: int, parts: list[int], tmp_path: Path
) -> None:
    """A sum needs devices to hide in: parts of the usual number would all fail, and nothing could be decided."""
    strategy = built(name, RunSafeguards(private(tmp_path)), trial_parts=4)
    drawn = [strategy.draw_trial(list(range(nodes)), trial(), part) for part in (1, 2, 3, 4)]
    assert [len(cohort) for cohort in drawn if cohort] == parts
    assert sorted(node for cohort in drawn for node in cohort) == list(range(nodes))


def test_what_is_no_answer_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def mixed(client: int, spec: VectorSpec) -> ExperienceVector:
        vector = answer(client, spec)
        if client == 0:
            return replace(vector, gradient=vector.gradient * 50)  # louder than the clipping norm
        if client == 1:
            return answer(client, replace(spec, policy_version="v0"))
        if client == 2:
            return replace(vector, gradient=vector.gradient * np.float32(np.nan))
        if client == 3:
            raise ValueError("the safe opens with 4711")
        return vector

    fleet = Fleet(mixed)
    with caplog.at_level(logging.WARNING, "flwr"):
        aggregate = fleet.trial(built("mean"), trial())
    assert aggregate.cohort == 4
    assert np.allclose(sums_of(aggregate.vector), expected([4, 5, 6, 7]), atol=1e-2)
    assert "3 refused: bad vector" in caplog.text and "4711" not in caplog.text


class Picky(Mean):
    """Refuses the answers to a trial."""

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        raise VectorError("they disagree too much")


class Overflowing(Mean):
    """Gives a sum of answers that is not finite."""

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        vector = super().aggregate_trial(contributions, cycle).vector
        return Aggregate(replace(vector, gradient=vector.gradient * np.float32(np.inf)), len(contributions))


@pytest.mark.parametrize(("kind", "says"), [(Picky, "they disagree too much"), (Overflowing, "not finite")])
def test_answers_that_a_strategy_cannot_use_are_none(
    kind: type[Mean], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flwr"):
        assert Fleet().trial(kind(Ledger(EXPERIENCE)), trial()) is None
    assert says in caplog.text


def test_a_trial_that_nobody_answers_has_no_sum_and_the_one_before_is_not_taken_for_it() -> None:
    silent: list[bool] = [False]

    def moody(client: int, spec: VectorSpec) -> ExperienceVector:
        if silent[0]:
            raise ValueError
        return answer(client, spec)

    fleet, strategy = Fleet(moody), built("mean")
    assert fleet.trial(strategy, trial()) is not None
    silent[0] = True
    assert fleet.trial(strategy, trial(serial=2)) is None


# With safeguards: secure sums, noise and a budget


def private(folder: Path, **changed: Scalar) -> RunConfig:
    config = RunConfig.from_flat({
        "clients": CLIENTS, "cycles": 1, "server.public": "prompts", "strategy.name": "secure-mean",
        "privacy.colluding": 0.25, "context.halvings": 0, "distil.halvings": 0,
        "trial.contexts": True, "trial.share": 1.0, "out": str(folder), **changed,
    })  # fmt: skip
    make_fleet(keys_folder(config), CLIENTS)
    return config


NOISY: dict[str, dict[str, Scalar]] = {
    "secure-mean": {"privacy.mechanism": "distributed", "privacy.epsilon": 1e3},
    "central-mean": {"privacy.mechanism": "central", "privacy.epsilon": 1e3},
    "local-mean": {"privacy.mechanism": "local", "privacy.epsilon": 1e4},
}


@pytest.mark.parametrize("name", ["secure-mean", "grouped-secure"])
def test_a_trial_of_a_secure_strategy_is_a_secure_sum(name: str, tmp_path: Path) -> None:
    config = private(tmp_path, **{"strategy.name": name})
    fleet, safeguards = Fleet(config=config), RunSafeguards(config)
    aggregate = fleet.trial(built(name, safeguards), trial())
    assert aggregate.cohort == CLIENTS and aggregate.noise == 0
    assert np.allclose(sums_of(aggregate.vector), expected(list(range(CLIENTS))), atol=0.05)
    assert {kind for kind, _ in fleet.messages} == set(ACTIONS.values())  # and nothing in plain


@pytest.mark.parametrize(("name", "counted"), [("secure-mean", 0), ("grouped-secure", CLIENTS // 2)])
def test_a_secure_sum_that_clipped_answers_cannot_give_is_left_out(
    name: str, counted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def loud(client: int, spec: VectorSpec) -> ExperienceVector:
        vector = answer(client, spec)
        return replace(vector, gradient=vector.gradient + np.float32(4 if client == 0 else 0))

    def without_clipping(vector: ExperienceVector, plan: PrivacyPlan) -> Any:
        (part,) = plan.parts
        return np.rint(vector.gradient * (plan.steps / part.norm)).astype(np.int64).astype(cell_type(plan.bits))

    monkeypatch.setattr(client_secure, "protected", without_clipping)
    config = private(tmp_path, **{"strategy.name": name})
    with caplog.at_level(logging.WARNING, "flwr"):
        aggregate = Fleet(loud, config).trial(built(name, RunSafeguards(config)), trial())
    assert (aggregate.cohort if aggregate else 0) == counted and "a device has not clipped" in caplog.text


@pytest.mark.parametrize(("entry", "value", "hidden"), [(2, -1.7, False), (-1, 1.7, True)])
def test_an_answer_that_no_device_can_give_is_left_out_or_its_secure_sum_if_that_shows_it(
    entry: int, value: float, hidden: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer games than none would turn a loss into a gain; one device that has gone back seven times hides in eight."""

    def lies(client: int, spec: VectorSpec) -> ExperienceVector:
        told = answer(client, spec).gradient.copy()
        told[entry] = value if client == 0 else told[entry]
        return ExperienceVector.from_parts(spec, {"gradient": told.astype(np.float64)})

    plain = Fleet(lies).trial(built("mean"), trial())
    others = list(range(1, CLIENTS))
    assert plain.cohort == len(others) and np.allclose(sums_of(plain.vector), expected(others), atol=0.01)
    config = private(tmp_path)
    with caplog.at_level(logging.WARNING, "flwr"):
        secure = Fleet(lies, config).trial(built("secure-mean", RunSafeguards(config)), trial())
    assert (secure is not None) == hidden == ("a device has sent what no game can give" not in caplog.text)


def test_groups_too_small_for_a_part_of_a_trial_are_refused_with_the_setting_that_helps(tmp_path: Path) -> None:
    config = private(tmp_path, **{"strategy.name": "grouped-secure"}, **{"trial.share": 0.5})
    with pytest.raises(ConfigError, match=r"4 devices in a part of a trial do not make .* or trial\.share, or lower"):
        built("grouped-secure", RunSafeguards(config)).check(SPEC)


@pytest.mark.parametrize("name", list(NOISY))
def test_a_noisy_trial_spends_one_release_and_says_its_variance(name: str, tmp_path: Path) -> None:
    config = private(tmp_path, **{"strategy.name": name}, **NOISY[name])
    fleet, safeguards = Fleet(config=config), RunSafeguards(config)
    spec = TrialTerms(2, 2.0, False).spec("v1", ("coin", "cooking"))
    plan = safeguards.plan(spec)
    aggregate = fleet.trial(built(name, safeguards), trial(spec, plan=plan.to_json() if name == "local-mean" else ""))
    assert safeguards.ledger.spent() == safeguards.ledger.spent(1) == 1
    contributors = {"central-mean": 1}.get(name, aggregate.cohort)
    public = {"secure-mean": safeguards.public_factor(SPEC) * plan.minimum}.get(name, contributors)
    assert aggregate.noise == pytest.approx(plan.variance("gradient", 1) * public) and aggregate.noise > 0
    deviation = aggregate.noise**0.5 * TrialTerms.of(spec).units
    assert (np.abs(sums_of(aggregate.vector) - expected(fleet.asked[0], spec)) < 6 * deviation + 0.05).all()


def test_a_trial_with_noise_of_the_devices_is_written_down_before_a_device_answers(tmp_path: Path) -> None:
    config = private(tmp_path, **{"strategy.name": "local-mean"}, **NOISY["local-mean"])
    safeguards, spent = RunSafeguards(config), list[int]()

    def noted(client: int, spec: VectorSpec) -> ExperienceVector:
        spent.append(RunSafeguards(config).ledger.spent(1))
        return answer(client, spec)

    Fleet(noted, config).trial(built("local-mean", safeguards), trial())
    assert set(spent) == {1}


@pytest.mark.parametrize("name", list(NOISY))
def test_an_exhausted_budget_asks_nobody(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = private(tmp_path, **{"strategy.name": name}, **NOISY[name])
    fleet, safeguards = Fleet(config=config), RunSafeguards(config)
    assert safeguards.releases == 1 + 1 + 1  # one of experience, one of a context, one of a candidate
    for _ in range(safeguards.releases):
        safeguards.spend(1)
    with caplog.at_level(logging.WARNING, "flwr"):
        assert fleet.trial(built(name, safeguards), trial()) is None
    assert fleet.asked == [[]] and "trial: no release: all 3 releases" in caplog.text
    assert safeguards.ledger.spent() == safeguards.releases


def test_noisy_trials_draw_anew_and_others_do_not(tmp_path: Path) -> None:
    noisy = private(
        tmp_path / "noisy", clients=200, **{"strategy.fraction-train": 0.5, "trial.share": 0.5}, **NOISY["secure-mean"]
    )
    nodes, spec = list(range(200)), TrialTerms(2, 2.0, False).spec("v1", ("coin",))
    strategy = built("secure-mean", RunSafeguards(noisy), fraction_train=0.5, trial_parts=2)
    drawn = [
        strategy.draw_trial(nodes, trial(spec, serial=serial), part)
        for serial, part in ((1, 1), (1, 1), (2, 1), (3, 2))
    ]
    assert drawn[0] == drawn[1]  # a resumed run may ask the same again
    assert len({tuple(sorted(cohort)) for cohort in drawn}) == 3
    assert all(25 < len(cohort) < 80 and len(set(cohort)) == len(cohort) for cohort in drawn)  # a quarter on average
    assert set(drawn[2]) & set(drawn[3])
    exact = private(tmp_path / "exact", clients=200, **{"strategy.fraction-train": 0.5, "trial.share": 0.5})
    strategy = built("secure-mean", RunSafeguards(exact), fraction_train=0.5, trial_parts=2)
    one, same, other = (
        set(strategy.draw_trial(nodes, trial(spec, serial=serial), part)) for serial, part in ((1, 1), (2, 1), (2, 2))
    )
    assert one == same and not one & other and len(one) == len(other) == 50


def test_a_failed_secure_sum_of_a_trial_is_none_and_spends_nothing(tmp_path: Path) -> None:
    def mostly_gone(client: int, spec: VectorSpec) -> ExperienceVector:
        if client > 2:
            raise ValueError
        return answer(client, spec)

    config = private(tmp_path, **NOISY["secure-mean"])
    fleet, safeguards = Fleet(mostly_gone, config), RunSafeguards(config)
    assert fleet.trial(built("secure-mean", safeguards), trial()) is None
    assert safeguards.ledger.spent() == 0
