"""When a device takes a version for clearly worse than the one before, and what it remembers of both."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.client.fallback import ALPHA, HIGHEST, LOWEST, Results, Success, clearly_worse, radius

LIVES, SLACK = 500, 0.01
MERITS = st.lists(st.floats(LOWEST, HIGHEST), min_size=1, max_size=8)


def looks(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], alpha: float) -> int:
    """Return after how many games of the later version it is taken for worse, if one looks after each; 0 if never."""
    old = Results("old", games=len(before), merit=float(before.sum()))
    for games, merit in enumerate(after.cumsum().tolist(), start=1):
        if clearly_worse(old, Results("new", games=games, merit=merit), alpha):
            return games
    return 0


@pytest.mark.parametrize("alpha", [ALPHA, 0.2])
@pytest.mark.parametrize("merits", [(-1.0, 2.0), (0.0, 2.0)])
def test_equal_versions_are_rarely_taken_for_worse_although_a_device_looks_after_every_game(
    alpha: float, merits: tuple[float, float]
) -> None:
    rng = np.random.default_rng([int(100 * alpha), int(merits[0] < 0)])
    alarms = [looks(rng.choice(merits, 60), rng.choice(merits, 200), alpha) > 0 for _ in range(LIVES)]
    assert np.mean(alarms) <= alpha + SLACK


def test_a_mean_stays_within_its_confidence_sequence_at_all_times_at_once() -> None:
    """The bound is not idle: with alpha 0.5, some of the lives leave it."""
    rng, games = np.random.default_rng(0), np.arange(1, 401)
    draws = rng.choice([LOWEST, HIGHEST], (LIVES, len(games))).cumsum(axis=1) / games
    for alpha in (0.05, 0.5):
        bounds = np.array([radius(int(number), alpha) for number in games])
        left = (np.abs(draws - (LOWEST + HIGHEST) / 2) > bounds).any(axis=1)
        assert left.mean() <= alpha + SLACK
    assert left.any()


def test_a_fall_from_nine_wins_of_ten_to_one_is_found_within_about_a_hundred_games() -> None:
    rng = np.random.default_rng(1)
    found = [looks(2.0 * (rng.random(100) < 0.9), 2.0 * (rng.random(120) < 0.1), ALPHA) for _ in range(50)]
    assert all(found) and np.median(found) < 60 and max(found) <= 100


@given(st.integers(1, 500), st.integers(1, 500), st.floats(LOWEST, HIGHEST), st.floats(LOWEST, HIGHEST))
def test_only_a_lower_mean_is_worse_and_more_games_tell_more(old: int, new: int, before: float, after: float) -> None:
    one, other = Results("old", 1, old, old * before), Results("new", 1, new, new * after)
    if clearly_worse(one, other):
        assert before > after and not clearly_worse(other, one)
        assert clearly_worse(Results("old", 1, 4 * old, 4 * old * before), Results("new", 1, 4 * new, 4 * new * after))


def test_nothing_is_known_of_a_version_that_was_not_played() -> None:
    assert radius(0, ALPHA) == math.inf
    assert not clearly_worse(Results("old", 1, 10_000, 20_000.0), Results("new"))
    assert not Success().fallen_back and not Success().fell_back_from("")


def life(*cycles: tuple[str, float], games: int = 50) -> Success:
    """Play a cycle of each version in turn, always with the same merit."""
    success = Success()
    for cycle, (version, merit) in enumerate(cycles, start=1):
        success = success.plus(version, cycle, [merit] * games)
    return success


def names(success: Success) -> list[str]:
    return [one.version for one in success.versions]


def test_a_device_goes_back_from_a_version_that_is_clearly_worse() -> None:
    success = life(("v1", 2.0), ("v2", 0.0))
    assert success.fell_back_from("v2") and not success.fell_back_from("v1")
    assert not life(("v1", 2.0), ("v2", 2.0)).fallen_back and not life(("v1", 0.0), ("v2", 2.0)).fallen_back


def test_it_returns_when_the_version_is_not_clearly_worse_any_more() -> None:
    success = life(("v1", 2.0), ("v2", 0.0))
    assert not success.plus("v2", 9, [2.0] * 400).fallen_back


def test_the_version_before_is_the_last_one_that_was_not_clearly_worse() -> None:
    assert names(life(("v1", 2.0), ("v2", 2.0), ("v3", 2.0))) == ["v2", "v3"]
    after_a_fall = life(("v1", 2.0), ("v2", 0.0), ("v3", 0.0))
    assert names(after_a_fall) == ["v1", "v3"] and after_a_fall.fell_back_from("v3")


def test_a_server_that_goes_back_itself_is_followed() -> None:
    assert names(life(("v1", 2.0), ("v2", 2.0), ("v1", 2.0))) == ["v2", "v1"]
    after_a_fall = life(("v1", 2.0), ("v2", 0.0), ("v1", 2.0))
    assert after_a_fall.versions == (Results("v1", 3, 100, 200.0),)


def test_a_repeated_request_is_counted_once_and_merits_are_bounded() -> None:
    success = Success().plus("v1", 1, [2.0, 0.0])
    assert success.plus("v1", 1, [2.0, 0.0]) == success
    assert success.plus("v1", 2, [9.0, -9.0]).versions == (Results("v1", 2, 4, 3.0),)


@given(st.lists(st.tuples(st.sampled_from(["v1", "v2", "v3"]), MERITS), max_size=6))
def test_results_are_read_as_they_were_written_and_of_two_versions_at_most(played: list[Any]) -> None:
    success = Success()
    for cycle, (version, merits) in enumerate(played):
        success = success.plus(version, cycle, merits)
        assert success.versions[-1].version == version and len(success.versions) <= 2
    assert Success.from_values(json.loads(json.dumps(success.to_values()))) == success


WHOLE = Success((Results("v1", 1, 3, 2.0), Results("v2", 2, 3, 4.0))).to_values()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**WHOLE, "version": ["v1"]},
        {**WHOLE, "games": 3},
        {**WHOLE, "games": ["many", 3]},
        {**WHOLE, "games": [-3, 3]},
        {**WHOLE, "merit": [7.0, 4.0]},
        {**WHOLE, "merit": [math.nan, 4.0]},
        {**WHOLE, "cycle": [math.inf, 2]},
        {name: [*column, column[0]] for name, column in WHOLE.items()},
    ],
)
def test_damaged_results_start_anew(values: dict[str, Any]) -> None:
    assert Success.from_values(WHOLE).versions and Success.from_values(values) == Success()
