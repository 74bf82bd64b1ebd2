"""Environments with `reset` and `step` as games: what the three functions get, ends, and walkthroughs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.games.environment import Outcome, Step, environment_family, outcome_by_reward
from fedoel.games.families import Number
from fedoel.games.game import Engine, RuledGame
from fedoel.protocol.errors import GameError

Seen = Mapping[str, Any]


class Walk:
    """A walk along a line to its end; every step costs, and time runs out."""

    made: list[Walk]

    def __init__(self, length: int = 3, patience: int = 50) -> None:
        self.length, self.patience, self.closed = length, patience, False
        self.made.append(self)

    def reset(self, *, seed: int) -> tuple[int, Seen]:
        self.at, self.steps = seed % self.length, 0
        return self.at, {"steps": 0}

    def step(self, action: Any) -> tuple[int, Any, Any, bool, Seen]:  # numpy's numbers, too
        self.at, self.steps = self.at + int(action[0]), self.steps + 1
        arrived = np.bool_(self.at >= self.length)
        return (
            self.at,
            np.float32(2.0 if arrived else -0.5),
            arrived,
            self.steps >= self.patience,
            {"steps": self.steps},
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "made", [], raising=False)


def text(observation: int, info: Seen) -> str:
    return f"At {observation} after {info['steps']} steps."


def commands(observation: int, info: Seen) -> Mapping[str, Any]:
    back = {"go back": np.array([-1])} if observation > 0 else {}
    return {**back, "go on": np.array([1])}


def walk(make: Callable[..., Walk] = Walk, settings: Mapping[str, int] | None = None, **functions: Any) -> Engine:
    family = environment_family(make, text, commands, **functions)
    return family.engine("walk", settings or {}, Path())


def test_functions_see_observation_and_info_and_actions_are_taken() -> None:
    engine = walk(goal=lambda observation, info: f"Walk on from {observation}.")
    first = engine.start(1)
    assert (first.text, first.goal, first.admissible) == (
        "At 1 after 0 steps.",
        "Walk on from 1.",
        ("go back", "go on"),
    )
    assert engine.act("go back").admissible == ("go on",)
    engine.act("go on")
    last = [engine.act("go on"), engine.act("go on")][-1]
    assert (last.score, last.max_score, last.won, last.lost, last.admissible) == (1.0, 1.0, True, False, ())
    assert last.text == "At 3 after 4 steps." and last.goal == "Walk on from 1."


def test_time_that_runs_out_ends_an_episode_that_is_neither_won_nor_lost() -> None:
    engine = walk(lambda: Walk(patience=1))
    engine.start(0)
    last = engine.act("go on")
    assert (last.won, last.lost, last.admissible) == (False, False, ())


def test_by_default_a_reward_at_the_end_wins() -> None:
    ends = [Step(0, {}, 1.0, True), Step(0, {}, 0.0, True), Step(0, {}, 1.0), Step(0, {}, 1.0, truncated=True)]
    assert list(map(outcome_by_reward, ends)) == [Outcome(1.0, won=True), Outcome(lost=True), Outcome(), Outcome()]


def test_an_outcome_of_ones_own_sees_the_sum_of_rewards() -> None:
    engine = walk(outcome=lambda step: Outcome(max(0.0, 1 + step.total / 10), won=step.terminated))
    engine.start(2)
    assert engine.act("go back").score == pytest.approx(0.95)
    assert engine.act("go on").score == pytest.approx(0.9)


def test_settings_reach_the_environment_and_it_is_made_late_and_closed() -> None:
    engine = walk(settings={"length": 5}, rules={"length": Number(2, 9)})
    assert Walk.made == []
    engine.start(4)
    engine.start(4)
    assert [environment.length for environment in Walk.made] == [5]
    assert engine.walkthrough() == ("go on",)
    engine.close()
    engine.close()
    assert all(environment.closed for environment in Walk.made) and len(Walk.made) == 2
    with pytest.raises(GameError, match="reset the game"):
        engine.walkthrough()


def test_an_environment_has_red_lines_as_any_family() -> None:
    family = environment_family(Walk, lambda seen, info: "A path.", lambda seen, info: {}, red_lines=("go back",))
    assert family.red_lines == ("go back",)


def test_without_a_solution_the_walkthrough_is_found_by_random_play_and_leaves_the_episode_alone() -> None:
    engine = walk()
    engine.start(0)
    engine.act("go on")
    assert engine.walkthrough() == ("go on",) * 3
    assert engine.act("go on").text == "At 2 after 2 steps."


def test_where_random_play_never_wins_the_walkthrough_is_an_episode_that_does_not() -> None:
    engine = walk(lambda: Walk(length=50, patience=5))
    engine.start(0)
    assert len(engine.walkthrough() or ()) == 5


def test_a_solution_is_asked_action_by_action() -> None:
    positions: list[int] = []

    def solve(environment: Walk) -> Iterator[Any]:
        while True:
            positions.append(environment.at)
            yield np.array([1])

    engine = walk(solve=solve)
    engine.start(1)
    assert engine.walkthrough() == ("go on", "go on") and positions == [1, 2]


def test_a_solution_that_takes_what_no_command_takes_is_refused() -> None:
    engine = walk(solve=lambda environment: iter([np.array([7])]))
    engine.start(1)
    with pytest.raises(GameError, match=r"array\(\[7\]\), and the commands are \['go back', 'go on'\]"):
        engine.walkthrough()


def test_an_open_environment_takes_any_text_that_means_an_action() -> None:
    def answer(said: str, observation: int, info: Seen) -> Any:
        return np.array([1]) if "forward" in said else None

    family = environment_family(Walk, text, commands, answer=answer)
    game = RuledGame(family.engine("walk", {}, Path()), 5)
    first = game.reset(0)
    assert first.open and first.admissible == ("go on",)
    refused = game.step("sing")
    assert (refused.valid, refused.text, refused.turn) == (False, first.text, 1)
    assert game.step("Step forward, please.").valid
    assert game.step("go on").valid
    last = game.step("forward")
    assert last.won and not last.open
