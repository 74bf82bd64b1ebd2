"""Public turns of a server that never plays: which prompts a cycle has, whose answers, and what it cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.context import TeacherContext, no_context
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.experience import Aggregate, Counters, ExperienceVector
from fedoel.protocol.prompt_pack import Prompt, PromptPack, read_pack, write_pack
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.app import prepare
from fedoel.server.cycle.mixture import Mixture
from fedoel.server.cycle.server import CycleServer
from fedoel.server.fleet import make_fleet
from fedoel.server.public.prompts import PromptsPublic, PromptStates
from fedoel.strategies.server_side import Traffic


def situation(number: int, commands: int = 2) -> Situation:
    return Memory(f"Take coin {number}.", 5).see("-= Hall =-\nA hall.", tuple("abcdef"[:commands]), 0)


def public(prompts: int, per_cycle: int, seed: int = 0, others: int = 0) -> PromptsPublic:
    """A pack with so many prompts with a choice, and others that ask for an open answer or leave no choice."""
    with_a_choice = [Prompt("coin", situation(number)) for number in range(prompts)]
    without = [Prompt("coin", situation(prompts + number, number % 2)) for number in range(others)]
    return PromptsPublic(PromptPack("a test", "CC0", tuple([*without, *with_a_choice])), per_cycle, seed)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_cycles_use_other_prompts_until_all_have_been_used(prompts: int, per_cycle: int, seed: int) -> None:
    pack = public(prompts, per_cycle, seed)
    size = min(prompts, per_cycle)
    cycles = [pack.of_cycle(cycle) for cycle in range(prompts // size + 1)]
    assert all(len(set(some)) == size for some in cycles)
    first = [one for some in cycles for one in some][:prompts]
    assert len(set(first)) == prompts  # all of them before any one comes again
    assert pack.of_cycle(1) == public(prompts, per_cycle, seed).of_cycle(1)


def test_the_order_is_of_the_runs_seed() -> None:
    assert public(40, 10, 1).of_cycle(1) != public(40, 10, 2).of_cycle(1)


def test_prompts_without_a_choice_are_left_out() -> None:
    pack = public(6, 6, others=4)
    assert {len(one.admissible) for one in [*pack.of_cycle(0), *pack.of_cycle(1)]} == {2}
    for turns in (pack.uniform(), pack.for_parameters()):
        assert len(turns) == 6 and all(np.allclose(turn.log_probs, np.log(0.5)) for turn in turns)
        assert {turn.reward for turn in turns} == {0.0}
    assert pack.digest == pack.pack.digest


@pytest.fixture
def server(config: RunConfig) -> Iterator[CycleServer]:
    """A server after cycle 0, whose fleet has not been asked anything."""
    config = replace(config, cycles=2)
    make_fleet(Path(config.out) / "keys", config.clients)
    _, server = prepare(config, Path(config.out))
    with server.run.log:
        server.start()
        yield server


def states_of(server: CycleServer, cycle: int = 1, **changed: Any) -> PromptStates:
    run = replace(server.run, config=replace(server.run.config, server=replace(server.run.config.server, **changed)))
    return cast(PromptStates, run.public.states(run, server.state.version, cycle))


def collect(server: CycleServer, visits: float = 4.0) -> ExperienceVector:
    """Put a vector of experience into the first exchange; every step of either family has been visited so often."""
    server.request(1, 1)
    spec = server.run.spec(server.state.version.name)
    values = np.zeros(spec.counters_shape, np.float32)
    counters = Counters(values)
    counters.visits[:], counters.returns[:] = visits, [[2.0], [3.0]]
    values[:, 2] = visits * spec.horizon
    gradient = np.random.default_rng(0).normal(size=spec.dimension)
    vector = replace(ExperienceVector.from_parts(spec, {"gradient": gradient}), counters=counters)
    server.collect(1, 1, Aggregate(vector, 4), Traffic(1.0, 1.0, 4, {}))
    return vector


def test_a_device_estimates_its_own_baseline_unless_the_fleet_told_one(server: CycleServer) -> None:
    assert states_of(server, 1, baseline="fleet").baseline(1, []) is None  # nobody has sent anything yet
    collect(server)
    assert states_of(server, 2, baseline="device").baseline(1, []) is None
    told = states_of(server, 2, baseline="fleet").baseline(1, [])
    assert told is not None and told.shape == (2, server.run.plan.horizon)
    assert np.allclose(told, np.array([[0.5], [0.75]]))


def test_counters_that_a_private_sum_leaves_out_are_no_baseline(server: CycleServer) -> None:
    collect(server, visits=0.0)
    assert states_of(server, 2, baseline="fleet").baseline(1, []) is None


def test_a_server_without_rewards_has_no_reference(server: CycleServer) -> None:
    with pytest.raises(FedoelError, match=r'knows no rewards: set server\.public = "games"'):
        server.reference(1, 1)


def test_an_exchange_is_answered_by_the_policy_that_plays_it(
    server: CycleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, dimension = states_of(server), server.run.codec.encoder.dimension
    weights = np.random.default_rng(1).normal(size=dimension).astype(np.float32)
    contexts = [no_context(dimension), TeacherContext(weights, np.ones(dimension, np.float32), 0.1)]
    bare = states.without_context()
    monkeypatch.setattr("fedoel.server.public.prompts.turns_under", None)  # the policy has been asked once, and no more
    under = states.under(2, contexts)
    assert [turn.situation for turn in bare] == [turn.situation for turn in under]
    policy = server.run.learner.policy(server.state.version.adapter)
    for turns, player in ((bare, policy), (under, server.run.codec.teacher(policy, contexts[1]))):
        answers = player.score([turn.situation for turn in turns])
        assert all(np.array_equal(turn.log_probs, answer) for turn, answer in zip(turns, answers, strict=True))
    assert any(not np.allclose(a.log_probs, b.log_probs) for a, b in zip(bare, under, strict=True))
    [training] = states.training(Mixture.of(contexts[1]))
    assert [turn.situation for turn in training.visited] == [turn.situation for turn in bare] and not training.led


def test_a_fisher_diagonal_is_scaled_to_what_the_fleet_has_played(server: CycleServer) -> None:
    states = states_of(server)
    turns = states.without_context()
    vector = collect(server)
    played = float(vector.counters.values[:, 2].sum())
    assert states.scale(Aggregate(vector, 4), turns) == pytest.approx(played / len(turns))
    hidden = replace(vector, counters=Counters(np.zeros_like(vector.counters.values)))
    assert states.scale(Aggregate(hidden, 4), turns) == 4 * 2 * server.run.plan.horizon / len(turns)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"server.prompts": ""}, "fedoel prompts make FAMILIES --out FILE"),
        (
            {"codec.name": "text", "policy.backend": "torch", "privacy.allow-plaintext": True},
            r"context\.lists 4 gives several contexts at once, .* server\.public = .games.: .* context\.lists = 1",
        ),
        (
            {
                "codec.name": "text", "policy.backend": "torch", "privacy.allow-plaintext": True, "context.lists": 1,
            },
            r"'text' has contexts in words, which no trial sends: set trial\.contexts = false",
        ),
        (
            {
                "codec.name": "steering", "policy.backend": "torch", "strategy.name": "central-mean",
                "privacy.mechanism": "central", "privacy.epsilon": 8.0,
            },
            r"'steering' tries several contexts .* set trial\.contexts = false",
        ),
    ],
    ids=["no pack", "lists", "words", "several contexts"],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_remedy(config: RunConfig, changed: dict[str, Scalar], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(RunConfig.from_flat({**config.to_flat(), **changed}), Path(config.out))


def test_a_pack_with_hardly_a_choice_is_refused(config: RunConfig, pack: Path, tmp_path: Path) -> None:
    prompts = read_pack(pack)
    few = tmp_path / "few.jsonl"
    write_pack(few, replace(prompts, prompts=prompts.prompts[:15]))
    with pytest.raises(ConfigError, match="fewer than 16 prompts with several commands"):
        prepare(replace(config, server=replace(config.server, prompts=str(few))), Path(config.out))
