"""The secure sum over Flower messages: right sums, right refusals, and the ledger before anything is unmasked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedoel.client.contributions import Unrecorded
from fedoel.client.device.record import DeviceRecord
from fedoel.client.secure import Guard, Play, answer_step
from fedoel.protocol.errors import (
    ConfigError,
    FedoelError,
    NotNow,
    PrivacyError,
    SecureSumError,
    TrustError,
    VectorError,
)
from fedoel.protocol.experience import Aggregate, Counters, ExperienceVector, VectorSpec
from fedoel.protocol.fleet.membership import Membership
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.secagg.device import PHASES
from fedoel.protocol.secagg.keys import Identity
from fedoel.protocol.secagg.messages import ACTIONS, RECORD, Step, reply_from_records, step_from_records
from fedoel.protocol.secagg.terms import Terms
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.strategies.mean import EXHAUSTED
from fedoel.strategies.registry import load_strategy
from fedoel.strategies.secure_groups import GroupedSecure
from fedoel.strategies.secure_mean import FAILED, SecureMean, Tally

from .conftest import FLEET_KEY, Ledger, terms_signature

SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
CLIENTS = 8
Fault = Callable[[str, int, Step], None]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@dataclass
class Paper:
    """Safeguards on paper."""

    members: frozenset[bytes]
    budget: int = 100
    noise: float = 0.0
    minimum: int = 4
    colluding: float = 0.0
    max_dropout: float = 0.4
    share: float = 0.5
    secret: int = 0
    rounds: int = 0
    steps: list[str] = field(default_factory=list)
    signed_members: bytes = b""
    log: Any = None
    notice: Any = None
    staged: bool = False
    deployed: bool = False
    sign_terms: Callable[[bytes], bytes] = terms_signature

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def sample(self, spec: VectorSpec | None = None) -> int:
        return CLIENTS

    def chance(self, spec: VectorSpec | None = None) -> float:
        return self.share

    present: int = 0

    def enough(self, nodes: int) -> bool:
        return nodes >= self.present

    def releasable(self, cohort: int) -> bool:
        return cohort >= self.minimum

    def plan(self, spec: VectorSpec, cohort: int | None = None) -> PrivacyPlan:
        parts = Part("gradient", 4, 5.0, 0.8), Part("fisher", 4, 20.0, 0.6)
        return PrivacyPlan.make(parts, cohort or CLIENTS, cohort // 2 if cohort else self.minimum, self.noise)

    def public_factor(self, spec: VectorSpec) -> float:
        return 2.5

    def begin_round(self) -> tuple[str, int]:
        self.rounds += 1
        return "ab", self.rounds

    def check_budget(self) -> None:
        if self.budget < 1:
            raise PrivacyError("spent")

    def spend(self, cycle: int) -> None:
        self.check_budget()
        self.budget -= 1
        self.steps.append("spend")


def vector(client: int) -> ExperienceVector:
    gradient = (np.array([1.0, -1.0, 0.5, 0.0]) * (client + 1) / 10).astype(np.float32)
    return ExperienceVector(SPEC, gradient, np.abs(gradient) * 3, Counters(np.zeros(SPEC.counters_shape, np.float32)))


class Fleet:
    """Devices whose vectors are known, and a server's strategy over a real grid of them.

    With a folder for `records`, they write down what they give, as deployed devices do.
    """

    def __init__(
        self, fault: Fault = lambda phase, client, step: None, records: Path | None = None, **settings: Any
    ) -> None:
        self.records = records
        identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(CLIENTS)]
        members = frozenset(each.public for each in identities)
        self.members = [Membership(each, members, FLEET_KEY, Path("nowhere")) for each in identities]
        self.fault = fault
        self.server = Ledger(SPEC, Paper(members, **settings))
        self.sent: list[tuple[str, int, RecordDict]] = []
        self.grid = InProcessGrid(self.app(), CLIENTS, {})
        self.contexts: dict[int, Context] = {}

    def app(self) -> ClientApp:
        app = ClientApp()
        for phase, action in ACTIONS.items():
            category, _, name = action.partition(".")
            (app.train if category == "train" else app.query)(name)(self.verb(phase))
        return app

    def verb(self, phase: str) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            client = int(context.node_config["partition-id"])
            self.contexts[client] = context
            self.fault(phase, client, step_from_records(message.content))
            try:
                records = answer_step(
                    phase, message.content, context, self.members[client], lambda request, run: vector(client),
                    self.guard(client),
                )  # fmt: skip
            except TrustError as error:
                raise FedoelError(f"code: {error.code}") from None
            self.sent.append((phase, client, records))
            if phase == "unmask":
                self.server.safeguards.steps.append("unmask")
            return Message(records, reply_to=message)

        return answer

    def guard(self, client: int) -> Guard:
        record = DeviceRecord(self.records / f"{client}.sqlite") if self.records else Unrecorded()
        return Guard(Trust(colluding=self.server.safeguards.colluding), record)

    def run(self, cycles: int = 1, **settings: Any) -> Ledger:
        SecureMean(self.server, **settings).start(self.grid, num_rounds=cycles)
        return self.server


def expected(clients: Iterable[int], part: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    chosen = np.stack([vector(client).parts()[part] for client in clients])
    return np.asarray(chosen.sum(axis=0))


def close(aggregate: Aggregate | None, clients: Iterable[int]) -> bool:
    assert aggregate is not None
    parts, chosen = aggregate.vector.parts(), list(clients)
    return aggregate.cohort == len(chosen) and all(
        np.allclose(parts[part], expected(chosen, part), atol=0.05) for part in ("gradient", "fisher")
    )


def silent(at: str, clients: Iterable[int]) -> Fault:
    quiet = set(clients)

    def fault(phase: str, client: int, step: Step) -> None:
        if phase == at and client in quiet:
            raise RuntimeError("the safe opens with 4711")

    return fault


def test_the_sum_is_that_of_everybody() -> None:
    fleet = Fleet()
    server = fleet.run(cycles=2)
    assert all(close(aggregate, range(CLIENTS)) for aggregate in server.aggregates) and len(server.aggregates) == 2
    assert server.traffic[0].accepted == CLIENTS and not server.traffic[0].refused
    assert 300 < server.traffic[0].uplink_bytes < 4096
    assert server.safeguards.rounds == 2


def test_a_reply_holds_bytes_and_nothing_else() -> None:
    fleet = Fleet()
    fleet.run()
    assert {phase for phase, _, _ in fleet.sent} == set(PHASES)
    for _, _, records in fleet.sent:
        assert set(records) == {RECORD} and isinstance(reply_from_records(records), bytes)


@pytest.mark.parametrize("phase", PHASES)
def test_three_of_eight_may_drop_out_at_each_phase(phase: str) -> None:
    server = Fleet(silent(phase, range(3))).run()
    left = range(CLIENTS) if phase in ("confirm", "unmask") else range(3, CLIENTS)
    assert close(server.aggregates[0], left)
    assert server.traffic[0].refused == {f"{phase}: error code 2": 3}


def test_too_few_fail_closed_and_the_next_round_runs() -> None:
    fleet = Fleet(silent("masked", range(5)))
    fleet.run()
    fleet.fault = lambda phase, client, step: None
    server = fleet.run()
    assert server.aggregates[0] is None and server.traffic[0].refused[FAILED] == 1
    assert close(server.aggregates[1], range(CLIENTS))
    assert server.safeguards.steps == ["spend", *["unmask"] * CLIENTS], "a failed round costs nothing"


@pytest.mark.parametrize("phase", PHASES[:4])
def test_a_round_with_too_few_left_asks_nobody_for_more(phase: str) -> None:
    asked: set[str] = set()

    def dropping(here: str, client: int, step: Step) -> None:
        asked.add(here)
        silent(phase, range(5))(here, client, step)

    assert Fleet(dropping).run().aggregates == [None]
    assert asked == set(PHASES[: PHASES.index(phase) + 1])


def test_who_is_not_reached_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    push, lost = fleet.grid.push_messages, list[Message]()

    def losing(messages: Iterable[Message]) -> Iterable[str]:
        chosen = list(messages)
        if not lost and chosen[0].metadata.message_type == ACTIONS["confirm"]:
            lost.append(chosen.pop())
        return push(chosen)

    monkeypatch.setattr(fleet.grid, "push_messages", losing)
    server = fleet.run()
    assert lost and close(server.aggregates[0], range(CLIENTS))
    assert not server.traffic[0].refused and len(fleet.sent) == len(PHASES) * CLIENTS


@pytest.mark.parametrize("phase", PHASES)
def test_a_device_that_never_answers_is_waited_for_so_long_and_named(
    phase: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does whose process was stopped."""
    fleet = Fleet()
    push, stopped = fleet.grid.push_messages, FIRST_NODE_ID + 2

    def losing(messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        here = asked[0].metadata.message_type == ACTIONS[phase]
        lost = [m for m in asked if here and m.metadata.dst_node_id == stopped]
        return [*push([m for m in asked if m not in lost]), *(f"lost-{n}" for n, _ in enumerate(lost))]

    monkeypatch.setattr(fleet.grid, "push_messages", losing)
    caplog.set_level("INFO", "flwr")
    server = fleet.run(phase_timeout=0.02, timeout=0.02)
    left = range(CLIENTS) if phase in ("confirm", "unmask") else [*range(2), *range(3, CLIENTS)]
    assert close(server.aggregates[0], left)
    assert server.traffic[0].refused == {f"{phase}: no reply": 1}
    assert f"no reply in phase '{phase}' within 0 s, asked 2 times: node {stopped}" in caplog.text


def test_a_cohort_whose_secrets_would_not_be_safe_is_refused() -> None:
    SecureMean(Fleet().server).check(SPEC)
    with pytest.raises(ConfigError, match="no threshold"):
        SecureMean(Fleet(max_dropout=0.8).server).check(SPEC)


def test_a_cohort_is_as_large_as_the_plan_says() -> None:
    """Without noise, devices beyond the plan's cohort take part in their turn; with noise, nobody can be left out."""
    request = Ledger(SPEC).request(1, 1)
    first = next(SecureMean(Fleet().server)._round(range(CLIENTS + 2), request, 1.0, Tally()))
    assert (first.name, sorted(first.steps)) == ("keys", list(range(CLIENTS)))
    for noise in (0.0, 1.0):
        with pytest.raises(SecureSumError, match="outside the plan's 4 to 8"):
            next(SecureMean(Fleet(noise=noise).server)._round(range(3), request, 1.0, Tally()))
    grown = next(SecureMean(Fleet(noise=1.0).server)._round(range(CLIENTS + 2), request, 1.0, Tally()))
    terms = Terms.from_json(grown.steps[0].body.decode())
    assert (terms.cohort, terms.minimum) == (CLIENTS + 2, CLIENTS // 2 + 1), "its noise is that of its own cohort"


def test_the_ledger_is_written_before_anything_is_unmasked() -> None:
    assert Fleet().run().safeguards.steps[0] == "spend"


def test_an_exhausted_budget_asks_nobody() -> None:
    fleet = Fleet(budget=1)
    server = fleet.run(cycles=3)
    assert [aggregate is None for aggregate in server.aggregates] == [False, True, True]
    assert server.traffic[1].refused == {EXHAUSTED: 1}
    assert len(fleet.sent) == len(PHASES) * CLIENTS


def test_noise_is_in_the_sum_and_its_variance_is_said() -> None:
    server = Fleet(noise=1.0, share=1.0).run()
    aggregate = server.aggregates[0]
    assert aggregate is not None
    plan = server.safeguards.plan(SPEC)
    assert aggregate.noise == 2.5 * plan.variance("gradient", plan.minimum) > plan.variance("gradient", CLIENTS) > 1.0
    assert not np.allclose(aggregate.vector.gradient, expected(range(CLIENTS), "gradient"), atol=0.2)


def test_cohorts_of_noisy_rounds_are_drawn_one_by_one() -> None:
    strategy = SecureMean(Fleet(noise=1.0).server)
    drawn = [strategy.draw(list(range(200)), cycle, 1) for cycle in range(50)]
    sizes = [len(cohort) for cohort in drawn]
    assert np.mean(sizes) == pytest.approx(100, abs=4) and np.std(sizes) == pytest.approx(7, abs=3)
    assert all(cohort != sorted(cohort) for cohort in drawn), "positions must be random"
    assert strategy.draw(list(range(200)), 0, 2) != drawn[0], "every exchange draws anew"
    assert strategy.draw(list(range(200)), 0, 1) == drawn[0], "who is asked again for a draw gives the same one"
    left = strategy.draw(list(range(100, 200)), 0, 1)
    assert set(left) == {node for node in drawn[0] if node >= 100}, "nodes that leave move nobody in or out"
    strategy.server.safeguards.secret = 7  # type: ignore[misc]
    assert strategy.draw(list(range(200)), 0, 1) != drawn[0], "who does not know the secret does not know the cohort"


def test_a_cohort_that_is_too_small_is_drawn_anew_and_not_the_same_again() -> None:
    """Of eight devices, each drawn with a chance of a quarter, a third of the cohorts has less than two."""
    strategy = SecureMean(Fleet(noise=1.0, share=0.25, minimum=2).server)
    cohorts = [strategy.draw(list(range(CLIENTS)), cycle, 1) for cycle in range(100)]
    assert min(map(len, cohorts)) == 2 and max(map(len, cohorts)) > 3
    alone = SecureMean(Fleet(noise=1.0, share=0.25, minimum=CLIENTS + 1).server)
    assert len(alone.draw(list(range(CLIENTS)), 0, 1)) <= CLIENTS, "it gives up where no cohort is large enough"


def test_a_noisy_sum_waits_until_enough_of_the_population_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is who is there, and not who was drawn: draws are not chosen by their size."""
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    fleet = Fleet(noise=1.0, share=1.0, present=CLIENTS + 1)
    waited: list[int] = []

    def enough(nodes: int) -> bool:
        waited.append(nodes)
        return len(waited) > 2

    monkeypatch.setattr(fleet.server.safeguards, "enough", enough)
    server = fleet.run(patience=1e6, min_available_nodes=CLIENTS)
    assert waited == [CLIENTS] * 3 and server.aggregates[0] is not None
    assert Fleet(noise=1.0, present=CLIENTS + 1).run().traffic[0].refused == {FAILED: 1}


def asked(fleet: Fleet, phase: str, client: int, records: RecordDict) -> RecordDict:
    """Ask a device directly, as a server that does not keep to the rules would."""
    play: Play = lambda request, run: vector(client)  # noqa: E731
    return answer_step(phase, records, fleet.contexts[client], fleet.members[client], play, fleet.guard(client))


def recorded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Mapping[tuple[str, int], RecordDict]:
    """Run a round and keep what every device was asked."""
    seen: dict[tuple[str, int], RecordDict] = {}
    push = fleet.grid.push_messages

    def keeping(messages: Iterable[Message]) -> Iterable[str]:
        chosen = list(messages)
        for message in chosen:
            name = message.metadata.message_type.partition(".")[2]
            seen[name, message.metadata.dst_node_id - FIRST_NODE_ID] = message.content
        return push(chosen)

    monkeypatch.setattr(fleet.grid, "push_messages", keeping)
    fleet.run()
    return seen


def test_a_device_answers_again_but_never_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    seen = recorded(fleet, monkeypatch)
    replies = {(phase, client): reply_from_records(records) for phase, client, records in fleet.sent}
    for phase in PHASES:
        assert reply_from_records(asked(fleet, phase, 0, seen[phase, 0])) == replies[phase, 0]
    changed = RecordDict(dict(seen["unmask", 0]))
    changed[RECORD] = replace(step_from_records(changed), body=b"\x0f").to_record()
    with pytest.raises(SecureSumError, match="answered already"):
        asked(fleet, "unmask", 0, changed)


def test_a_device_does_not_begin_a_round_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    old = recorded(fleet, monkeypatch)["keys", 0]
    fleet.run()
    with pytest.raises(SecureSumError, match="round 1 is over"):
        asked(fleet, "keys", 0, old)


def test_a_device_that_lost_its_state_has_dropped_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    seen = recorded(fleet, monkeypatch)
    fleet.contexts[0].state.clear()
    with pytest.raises(SecureSumError, match="another round, or in none"):
        asked(fleet, "unmask", 0, seen["unmask", 0])


@pytest.mark.parametrize("changed", [{"noise_multiplier": 0.5}, {"minimum": 2}, {"bits": 32}])
def test_devices_refuse_another_plan(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is part of what a round was agreed for: less noise is another one, and nobody sends a vector for it."""
    fleet = Fleet(noise=1.0, share=1.0)
    push = fleet.grid.push_messages

    def lying(messages: Iterable[Message]) -> Iterable[str]:
        chosen = list(messages)
        for message in chosen:
            if message.metadata.message_type == ACTIONS["masked"]:
                step = step_from_records(message.content)
                plan = replace(PrivacyPlan.from_json(step.extra.decode()), **changed)
                message.content[RECORD] = replace(step, extra=plan.to_json().encode()).to_record()
        return push(chosen)

    monkeypatch.setattr(fleet.grid, "push_messages", lying)
    server = fleet.run()
    assert server.aggregates == [None] and server.traffic[0].refused["masked: error code 2"] == CLIENTS
    assert not any(phase == "masked" for phase, _, _ in fleet.sent)


def test_single_vectors_are_not_to_be_had() -> None:
    with pytest.raises(VectorError, match="no single contributions"):
        SecureMean(Fleet().server).aggregate([])
    assert load_strategy("secure-mean") is SecureMean


@pytest.mark.parametrize("reply", [RecordDict(), RecordDict({"secure": Step(b"", b"").to_record()})])
def test_other_replies_are_refused(reply: RecordDict) -> None:
    with pytest.raises(SecureSumError, match="nothing else"):
        reply_from_records(reply)


@pytest.mark.parametrize("kind", [SecureMean, GroupedSecure])
def test_devices_that_are_not_ready_are_asked_again(monkeypatch: pytest.MonkeyPatch, kind: type[SecureMean]) -> None:
    """Nobody wants to play, twice; the third time they do, and it is the same exchange."""
    asked: list[str] = []
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)

    def tired(phase: str, client: int, step: Step) -> None:
        asked.append(phase)
        if asked.count("keys") <= 2 * CLIENTS:
            raise NotNow("at night only")

    fleet = Fleet(tired, max_dropout=0.2)
    kind(fleet.server, min_available_nodes=CLIENTS, patience=1e6).start(fleet.grid, num_rounds=1)
    [aggregate], [traffic] = fleet.server.aggregates, fleet.server.traffic
    assert aggregate is not None and aggregate.cohort == CLIENTS
    assert traffic.refused == {}
    assert asked.count("keys") == 3 * CLIENTS


def test_without_patience_a_round_that_nobody_wants_is_refused_by_name() -> None:
    def tired(phase: str, client: int, step: Step) -> None:
        raise NotNow("at night only")

    fleet = Fleet(tired)
    SecureMean(fleet.server, min_available_nodes=CLIENTS).start(fleet.grid, num_rounds=1)
    assert fleet.server.aggregates == [None]
    assert fleet.server.traffic[0].refused[FAILED] == 1
    assert sum(count for reason, count in fleet.server.traffic[0].refused.items() if "keys" in reason) == CLIENTS


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("phase", ["shares", "masked", "confirm", "unmask"])
def test_a_round_that_fails_closed_is_tried_again_unless_it_has_spent_budget(
    monkeypatch: pytest.MonkeyPatch, phase: str, noise: float
) -> None:
    """Too many drop out once, in any phase; when they are back, the sum is that of all of them."""
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    failures: list[int] = []

    def cut(here: str, client: int, step: Step) -> None:
        if here == phase and len(failures) < CLIENTS - 1:
            failures.append(client)
            raise RuntimeError("the network is gone")

    fleet = Fleet(cut, noise=noise, share=1.0)
    SecureMean(fleet.server, min_available_nodes=CLIENTS, patience=1e6).start(fleet.grid, num_rounds=1)
    [aggregate] = fleet.server.aggregates
    if noise and phase == "unmask":
        assert aggregate is None and fleet.server.safeguards.budget == 99
        return
    assert aggregate is not None and aggregate.cohort == CLIENTS
    if not noise:
        expected = sum(vector(client).gradient for client in range(CLIENTS))
        assert np.allclose(aggregate.vector.gradient, expected, atol=0.01)
