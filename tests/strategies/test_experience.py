"""The strategy: whom it asks, what it accepts, and that one bad client does not stop a cycle."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.clientapp import ClientApp

from fedoel.protocol.config import StrategyConfig
from fedoel.protocol.errors import ConfigError, FedoelError, VectorError
from fedoel.protocol.experience import Aggregate, Contribution, Counters, ExperienceVector, VectorSpec
from fedoel.protocol.messages import records_bytes, reply_to_records, request_from_records
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.strategies.cohort import sample, split, wait_for_nodes
from fedoel.strategies.controls import Turnover
from fedoel.strategies.experience import ExperienceStrategy
from fedoel.strategies.mean import Mean
from fedoel.strategies.registry import build_strategy, load_strategy
from fedoel.strategies.replies import sort_replies
from fedoel.strategies.robust import TrimmedMean

from .conftest import Ledger

SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 50.0, 200.0)
SECRET = "the safe opens with 4711"
CLIENTS = 5
Behaviour = Callable[[int, VectorSpec], ExperienceVector]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def vector(scale: float, spec: VectorSpec = SPEC) -> ExperienceVector:
    d = np.full(spec.dimension, scale, np.float32)
    return ExperienceVector(spec, d, d, Counters(np.full(spec.counters_shape, scale, np.float32)))


def good(client: int, spec: VectorSpec) -> ExperienceVector:
    return vector(0.125 * (client + 1), spec)


def make_app(behaviour: Behaviour) -> ClientApp:
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        request = request_from_records(message.content)
        answer = behaviour(int(context.node_config["partition-id"]), request.spec)
        return Message(reply_to_records(answer), reply_to=message)

    return app


def run(behaviour: Behaviour = good, cycles: int = 1, done: Sequence[tuple[int, int]] = (), **settings: Any) -> Ledger:
    ledger = Ledger(SPEC, done=set(done))
    Mean(ledger, **settings).start(InProcessGrid(make_app(behaviour), CLIENTS, {}), num_rounds=cycles)
    return ledger


def aggregate_of(ledger: Ledger, cycle: int = 1) -> Aggregate:
    aggregate = ledger.aggregates[cycle - 1]
    assert aggregate is not None
    return aggregate


def test_a_cycle_adds_up_every_client() -> None:
    ledger = run()
    aggregate, traffic = aggregate_of(ledger), ledger.traffic[0]
    assert aggregate.cohort == CLIENTS
    assert np.allclose(aggregate.vector.gradient, 1.875)
    assert (traffic.accepted, traffic.refused) == (CLIENTS, {})
    assert traffic.uplink_bytes == records_bytes(reply_to_records(vector(0.125)))
    assert traffic.downlink_bytes > 0


def test_the_strategy_that_readme_shows_is_found_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(code.splitlines()) <= 25
    (tmp_path / "my_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    ledger = Ledger(SPEC)
    load_strategy("my_module:Loudest")(ledger).start(InProcessGrid(make_app(good), CLIENTS, {}), num_rounds=1)
    aggregate = aggregate_of(ledger)
    assert aggregate.cohort == 3
    assert np.allclose(aggregate.vector.gradient, 0.375 + 0.5 + 0.625)


def test_cycles_go_through_their_steps_and_skip_what_is_on_disk() -> None:
    assert run(cycles=3, done=[(1, 1), (2, 1)]).steps == [
        "start", "consolidate 1", "consolidate 2", "request 3.1", "collect 3.1", "consolidate 3",
    ]  # fmt: skip
    assert run(cycles=2, done=[(1, 1)], exchanges=2).steps == [
        "start", "request 1.2", "collect 1.2", "consolidate 1",
        "request 2.1", "collect 2.1", "request 2.2", "collect 2.2", "consolidate 2",
    ]  # fmt: skip


def test_the_exchanges_of_a_cycle_deal_the_cohort_out_among_them() -> None:
    parts = split(list(range(11)), 3, seed=1, cycle=2)
    assert sorted(len(part) for part in parts) == [3, 4, 4]
    assert sorted(node for part in parts for node in part) == list(range(11))
    assert parts == split(list(range(11)), 3, seed=1, cycle=2) != split(list(range(11)), 3, seed=1, cycle=3)
    assert split(list(range(11)), 1, seed=1, cycle=2) == [list(range(11))]
    with pytest.raises(FedoelError, match=r"2 cannot take part in 3 exchanges: .*strategy\.exchanges"):
        split([1, 2], 3, seed=1, cycle=1)


def test_every_node_is_asked_in_one_exchange_of_a_cycle_although_nodes_come_and_go() -> None:
    there = {FIRST_NODE_ID + node for node in range(8)}

    class Changing(InProcessGrid):
        def get_node_ids(self) -> list[int]:
            return sorted(there)

    def asked(server_round: int) -> set[int]:
        messages = strategy.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
        return {message.metadata.dst_node_id for message in messages}

    grid, strategy, before = Changing(make_app(good), 10, {}), Mean(Ledger(SPEC), exchanges=2), set(there)
    first = asked(1)
    gone = min(before - first)
    there.remove(gone)
    there.update((FIRST_NODE_ID + 8, FIRST_NODE_ID + 9))
    assert asked(2) == before - first - {gone}


def test_a_part_whose_nodes_have_all_left_is_asked_nothing_and_the_cycle_goes_on() -> None:
    class Emptying(InProcessGrid):
        """Loses whoever is not asked at once; refuses to send nothing, as Flower does."""

        there: Sequence[int] = range(CLIENTS)

        def get_node_ids(self) -> list[int]:
            return [FIRST_NODE_ID + node for node in self.there]

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            sent = list(messages)
            assert sent
            self.there = [message.metadata.dst_node_id - FIRST_NODE_ID for message in sent]
            return super().push_messages(sent)

    ledger = Ledger(SPEC)
    Mean(ledger, exchanges=2).start(Emptying(make_app(good), CLIENTS, {}), num_rounds=1)
    assert ledger.steps == ["start", "request 1.1", "collect 1.1", "request 1.2", "collect 1.2", "consolidate 1"]
    assert [each is None for each in ledger.aggregates] == [False, True]


def test_bad_clients_are_counted_and_left_out() -> None:
    def behaviour(client: int, spec: VectorSpec) -> ExperienceVector:
        if client == 0:
            raise FedoelError("code: GameError")
        bad = {1: float("nan"), 2: 1e6}.get(client, 1.0)
        return vector(bad, replace(spec, policy_version="v0") if client == 3 else spec)

    ledger = run(behaviour)
    assert aggregate_of(ledger).cohort == 1
    assert ledger.traffic[0].refused == {"bad vector": 3, "client GameError": 1}


def test_text_of_a_failing_client_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    def behaviour(client: int, spec: VectorSpec) -> ExperienceVector:
        raise RuntimeError(SECRET)

    ledger = run(behaviour)
    assert ledger.aggregates == [None]
    assert ledger.traffic[0].refused == {"error code 2": CLIENTS}
    assert SECRET not in caplog.text
    assert "consolidate 1" in ledger.steps


def test_a_strategy_may_refuse_everything() -> None:
    class Never(ExperienceStrategy):
        def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
            raise VectorError("too few")

    ledger = Ledger(SPEC)
    Never(ledger).start(InProcessGrid(make_app(good), CLIENTS, {}), num_rounds=1)
    assert ledger.aggregates == [None]
    assert ledger.traffic[0].refused == {"aggregate refused": CLIENTS}
    assert ledger.traffic[0].accepted == 0


def test_an_aggregate_that_is_not_finite_is_refused_whoever_made_it() -> None:
    class Divides(Mean):
        def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
            whole = super().aggregate(contributions)
            return replace(whole, parts=(whole, replace(whole, vector=bad(whole.vector))))

    def bad(vector: ExperienceVector) -> ExperienceVector:
        return replace(vector, gradient=vector.gradient * np.float32("nan"))

    ledger = Ledger(SPEC)
    Divides(ledger).start(InProcessGrid(make_app(good), CLIENTS, {}), num_rounds=1)
    assert ledger.aggregates == [None]
    assert ledger.traffic[0].refused == {"aggregate refused": CLIENTS}
    assert ledger.traffic[0].accepted == 0


def test_a_share_of_the_nodes_is_asked_and_the_seed_decides_which() -> None:
    assert aggregate_of(run(fraction_train=0.5)).cohort == 2
    nodes = list(range(100))
    assert sample(nodes, 0.1, seed=1, cycle=2) == sample(nodes, 0.1, seed=1, cycle=2)
    assert sample(nodes, 0.1, seed=1, cycle=2) != sample(nodes, 0.1, seed=1, cycle=3)
    assert sample(nodes, 0.001, seed=1, cycle=1) != []
    assert sample(nodes, 1.0, seed=1, cycle=1) == nodes


class LateGrid(InProcessGrid):
    """A grid whose nodes register one by one."""

    def __init__(self) -> None:
        super().__init__(make_app(good), CLIENTS, {})
        self.asked = 0

    def get_node_ids(self) -> list[int]:
        self.asked += 1
        return [FIRST_NODE_ID + node for node in reversed(range(min(self.asked - 1, CLIENTS)))]


def test_it_waits_for_nodes_and_says_when_they_do_not_come() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert wait_for_nodes(LateGrid(), 3, 60, lambda: now[0], sleep) == [FIRST_NODE_ID + n for n in range(3)]
    with pytest.raises(FedoelError, match="5 of at least 6 nodes are there after 30 s"):
        wait_for_nodes(LateGrid(), 6, 30, lambda: now[0], sleep)


def exchanged(strategy: ExperienceStrategy) -> tuple[list[Message], list[Message]]:
    grid = InProcessGrid(make_app(good), CLIENTS, {})
    messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
    return messages, list(grid.send_and_receive(messages))


def test_aggregates_are_the_same_to_the_bit_in_any_order() -> None:
    results = set()
    for turn in range(CLIENTS):
        ledger = Ledger(SPEC)
        strategy = Mean(ledger)
        _, replies = exchanged(strategy)
        strategy.aggregate_train(1, replies[turn:] + replies[:turn][::-1])
        results.add(aggregate_of(ledger).vector.to_array().tobytes())
    assert len(results) == 1


def test_duplicates_strangers_and_silence_are_counted() -> None:
    messages, replies = exchanged(Mean(Ledger(SPEC)))
    asked = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
    strangers = exchanged(Mean(Ledger(SPEC)))[1]
    for number, stranger in enumerate(strangers):
        stranger.metadata.__dict__["_reply_to_message_id"] = f"other-{number}"
    arrived = sort_replies([replies[0], replies[0], replies[1], *strangers], asked, SPEC, 100)
    assert len(arrived.contributions) == 2
    assert arrived.refused == {"duplicate": 1, "no reply": CLIENTS - 2, "not asked for": CLIENTS}


def test_contributions_are_ordered_by_content_and_keep_their_node() -> None:
    messages, replies = exchanged(Mean(Ledger(SPEC)))
    asked: Mapping[str, int] = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
    orders = [
        [(c.node_id, c.vector.to_array().tobytes()) for c in sort_replies(order, asked, SPEC, 100).contributions]
        for order in (replies, replies[::-1])
    ]
    assert orders[0] == orders[1]
    assert {node for node, _ in orders[0]} == {FIRST_NODE_ID + n for n in range(CLIENTS)}


def test_errors_made_on_the_way_are_matched_by_message() -> None:
    messages, replies = exchanged(Mean(Ledger(SPEC)))
    asked = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
    lost = Message(Error(5, "node unavailable"), reply_to=messages[0])
    lost.metadata.__dict__["_src_node_id"] = 1
    assert sort_replies([lost, *replies[1:]], asked, SPEC, 100).refused == {"error code 5": 1}


@pytest.mark.parametrize(("name", "seen"), [("Stale", [1, 1, 2, 3]), ("Older", [1, 1, 1, 2])])
def test_old_experience_comes_late(name: str, seen: list[float]) -> None:
    rounds = [0]

    def behaviour(client: int, spec: VectorSpec) -> ExperienceVector:
        rounds[0] += 1
        return vector(0.125 * (client + 1) * ((rounds[0] - 1) // CLIENTS + 1), spec)

    ledger = Ledger(SPEC)
    strategy = load_strategy(f"fedoel.strategies.controls:{name}")(ledger)
    strategy.start(InProcessGrid(make_app(behaviour), CLIENTS, {}), num_rounds=4)
    found = [aggregate_of(ledger, cycle).vector for cycle in range(1, 5)]
    assert [float(each.gradient[0]) for each in found] == pytest.approx([1.875 * cycle for cycle in seen])
    assert [float(each.fisher[0]) for each in found] == pytest.approx([1.875 * cycle for cycle in seen])
    assert [float(each.counters.episodes[0]) for each in found] == pytest.approx([1.875, 3.75, 5.625, 7.5])


def test_some_devices_come_later_and_others_leave() -> None:
    strategy = Turnover(Ledger(SPEC), late=0.25, leaving=0.5)
    assert [strategy.draw([1, 2, 3, 4], cycle, 1) for cycle in (1, 2, 3)] == [[1, 2, 3], [3, 4], [3, 4]]
    with pytest.raises(ConfigError, match="late and leaving"):
        Turnover(Ledger(SPEC), late=1.0)


def test_replies_need_a_request() -> None:
    with pytest.raises(FedoelError, match="configure_train"):
        Mean(Ledger(SPEC)).aggregate_train(1, [])


def test_a_summary_shows_the_strategys_own_options_first(caplog: pytest.LogCaptureFixture) -> None:
    class Loud(Mean):
        def __init__(self, *arguments: Any, volume: float = 2.0, tone: int = 3, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.volume, self.tone = volume, tone

    with caplog.at_level("INFO", logger="flwr"):
        Loud(Ledger(SPEC), volume=7.0).summary()
    assert [record.getMessage() for record in caplog.records][:4] == [
        "\t├──> Loud settings:", "\t│\t├── volume: 7.0", "\t│\t└── tone: 3", "\t├──> Sampling:",
    ]  # fmt: skip


def test_nobody_is_asked_to_evaluate() -> None:
    strategy = Mean(Ledger(SPEC))
    grid = InProcessGrid(make_app(good), 1, {})
    assert list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid)) == []
    strategy.aggregate_evaluate(1, [])


@pytest.mark.parametrize("settings", [{"fraction_train": 0.0}, {"fraction_train": 1.5}, {"min_available_nodes": 0}])
def test_settings_that_ask_nobody_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fraction-train"):
        Mean(Ledger(SPEC), **settings)


def test_a_cycle_without_exchanges_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.exchanges"):
        Mean(Ledger(SPEC), exchanges=0)


def test_strategies_are_built_with_the_options_of_a_run() -> None:
    built = build_strategy(StrategyConfig("trimmed-mean", "beta=0.1", exchanges=2), Ledger(SPEC), seed=7)
    assert isinstance(built, TrimmedMean) and (built.beta, built.exchanges, built.seed) == (0.1, 2, 7)
    with pytest.raises(ConfigError, match=r"strategy\.options of 'trimmed-mean': unknown option 'trim=1'.*beta=0\.2"):
        build_strategy(StrategyConfig("trimmed-mean", "trim=1"), Ledger(SPEC), 0)
    with pytest.raises(ConfigError, match="beta must be in the range"):
        build_strategy(StrategyConfig("trimmed-mean", "beta=0.7"), Ledger(SPEC), 0)


def test_strategies_are_found_by_name() -> None:
    assert load_strategy("mean") is Mean
    assert load_strategy("fedoel.strategies.mean:Mean") is Mean


@pytest.mark.parametrize("name", ["median?", "nowhere:Mean", "fedoel.strategies.mean:Other", ":Mean", "json:dumps"])
def test_strategies_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name"):
        load_strategy(name)


@pytest.mark.parametrize("made", [None, "a sum", 3.0])
def test_a_strategy_that_makes_no_aggregate_is_named(made: object) -> None:
    class Odd(Mean):
        def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
            return made  # type: ignore[return-value]

    with pytest.raises(FedoelError, match=r"strategy Odd makes .* of the vectors, and has to make an Aggregate"):
        Odd(Ledger(SPEC)).start(InProcessGrid(make_app(good), CLIENTS, {}), num_rounds=1)
