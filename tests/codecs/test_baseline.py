"""The baseline of a device that was told none: the mean of its other episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.encoder import advantages_of, encode, load_encoder, returns_to_go, rewarded
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory

HORIZON = 4
SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("coin", "tidy"), HORIZON, 1e9, 1e9)
COMMANDS = ("take coin", "go east", "look")
REWARDS = st.sampled_from([-1.0, 0.0, 0.25, 1.0])
EPISODES = st.tuples(st.sampled_from(SPEC.families), st.lists(REWARDS, min_size=1, max_size=HORIZON))
DISCOUNTS = st.sampled_from([0.5, 0.9, 1.0])


def episode(family: str, rewards: list[float]) -> Trajectory:
    situation = Memory("Take the coin.", HORIZON).see("-= Hall =-\nA hall.", COMMANDS, 0)
    even = np.full(len(COMMANDS), -np.log(len(COMMANDS)), np.float32)
    turns = tuple(Turn(situation, even, step % len(COMMANDS), reward) for step, reward in enumerate(rewards))
    return Trajectory(GameSpec(family, (), HORIZON), 0, "v", turns, False, False, sum(rewards))


def by_episode(played: list[tuple[str, list[float]]], discount: float) -> list[list[float]]:
    """The advantages of each episode's turns."""
    flat = iter(advantages_of([episode(*one) for one in played], SPEC, None, discount))
    return [[next(flat) for _ in rewards] for _, rewards in played]


@given(st.lists(EPISODES, min_size=1, max_size=6), DISCOUNTS)
def test_an_advantage_is_the_return_less_the_mean_return_of_the_others(
    played: list[tuple[str, list[float]]], discount: float
) -> None:
    """Against a direct computation. The last step that another episode reached stands for all later ones."""
    returns = [returns_to_go(rewards, discount) for _, rewards in played]
    for index, found in enumerate(by_episode(played, discount)):
        others = [
            returns[other] for other, (family, _) in enumerate(played) if other != index and family == played[index][0]
        ]
        longest = max(map(len, others), default=0)
        for step, advantage in enumerate(found):
            if not others:
                assert advantage == 0
                continue
            at = min(step, longest - 1)
            mean = np.mean([other[at] for other in others if len(other) > at])
            assert advantage == pytest.approx(returns[index][step] - mean, abs=1e-5)


@given(st.integers(2, 6), st.integers(1, HORIZON), DISCOUNTS, st.data())
def test_the_advantages_of_a_step_that_all_episodes_reach_add_up_to_zero(
    episodes: int, steps: int, discount: float, data: st.DataObject
) -> None:
    rewards = st.lists(REWARDS, min_size=steps, max_size=HORIZON)
    found = by_episode([("coin", data.draw(rewards)) for _ in range(episodes)], discount)
    for step in range(steps):
        assert sum(advantages[step] for advantages in found) == pytest.approx(0, abs=1e-5)


@given(EPISODES, EPISODES, DISCOUNTS)
def test_a_lone_episode_of_a_family_says_nothing(
    one: tuple[str, list[float]], other: tuple[str, list[float]], discount: float
) -> None:
    assert by_episode([one], discount) == [[0.0] * len(one[1])]
    apart = by_episode([("coin", one[1]), ("tidy", other[1])], discount)
    assert not any(map(any, apart))


def test_episodes_longer_than_the_horizon_are_compared_with_its_last_step() -> None:
    long, short = [0.0] * HORIZON + [1.0], [0.0]
    assert by_episode([("coin", long), ("coin", short)], 1.0) == [[1.0] * 5, [-1.0]]
    assert by_episode([("coin", long), ("coin", long)], 1.0) == [[0.0] * 5] * 2


def test_a_vector_without_a_baseline_has_the_gradient_of_these_advantages_and_all_counters() -> None:
    played = [episode("coin", [0.0, 1.0]), episode("coin", [0.0]), episode("tidy", [1.0])]
    policy, encoder = TacticsPolicy("v", np.zeros(DIMENSION, np.float32)), load_encoder("tactics")
    alone = encode(encoder, policy, played, SPEC, None, 0.9)
    told = encode(encoder, policy, played, SPEC, np.zeros((2, HORIZON), np.float32), 0.9)
    assert np.array_equal(alone.counters.values, told.counters.values)
    assert np.array_equal(alone.fisher, told.fisher) and not np.array_equal(alone.gradient, told.gradient)
    turns = [turn for one in played for turn in one.turns]
    advantages = np.array([0.9, 1.0, -0.9, 0.0])
    assert np.allclose(alone.gradient, encoder.gradient_and_fisher(policy, turns, advantages)[0], atol=1e-6)


def test_an_answer_that_the_game_does_not_take_costs_what_the_setting_says() -> None:
    played = episode("tidy", [0.0, 1.0, 0.0])
    first, *others = played.turns
    refused = replace(played, turns=(replace(first, refused=True), *others))
    assert rewarded([refused], 0.0) == [refused]
    costly = rewarded([played, refused], 0.5)
    assert [[turn.reward for turn in each.turns] for each in costly] == [[0.0, 1.0, 0.0], [-0.5, 1.0, 0.0]]
    assert costly[0] == played and costly[1].score == refused.score
