from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory
from fedoel.server.evaluation import Z95, by_family, summarise, wilson

HERE = Memory("Go.", 9).see("-= Hall =-\nA hall.", ("look",), 0)
TURN = Turn(HERE, np.zeros(1, dtype=np.float32), 0, 0.0)


def episode(won: bool, turns: int, tokens: int, family: str = "coin") -> Trajectory:
    return Trajectory(GameSpec(family, (), 9), 0, "v", (TURN,) * turns, won, False, float(won), tokens)


@pytest.mark.parametrize(
    ("wins", "episodes", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_the_interval_is_wilsons(wins: int, episodes: int, low: float, high: float) -> None:
    assert wilson(wins, episodes) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_each_bound_is_where_the_score_test_turns(counts: tuple[int, int]) -> None:
    wins, episodes = counts
    rate = wins / episodes
    low, high = wilson(wins, episodes)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            assert abs(rate - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / episodes), rel=1e-6)
    mirrored = wilson(episodes - wins, episodes)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_win_costs_the_turns_and_tokens_of_the_lost_episodes_too() -> None:
    stats = summarise([episode(True, 3, 30), episode(False, 5, 50), episode(True, 1, 10), episode(False, 7, 70)])
    assert (stats.win_rate, stats.episodes, stats.score) == (0.5, 4, 0.5)
    assert (stats.turns_per_win, stats.tokens_per_win) == (8.0, 80.0)
    assert (stats.low, stats.high) == wilson(2, 4)


def test_without_a_win_there_is_no_price_of_one() -> None:
    stats = summarise([episode(False, 3, 30)])
    assert (stats.win_rate, stats.turns_per_win, stats.tokens_per_win) == (0.0, None, None)


def test_families_are_summed_up_by_themselves_in_order() -> None:
    found = by_family([episode(False, 2, 1, "b"), episode(True, 4, 9, "a"), episode(True, 6, 3, "b")])
    assert list(found) == ["b", "a"]
    assert (found["b"].turns_per_win, found["a"].turns_per_win) == (8.0, 4.0)
