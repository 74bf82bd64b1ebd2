"""Games of others that give what no policy can be shown: each is refused with one sentence that names the game."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedoel.games.environment import environment_family
from fedoel.games.game import LONGEST_TEXT, MOST_COMMANDS, Frame, RuledGame
from fedoel.protocol.errors import GameError
from fedoel.server.public.games import PublicGames
from fedoel.server.public.rollouts import GamesPublic

RIGHT = Frame("A room.", "Get out.", ("go north", "wait"), 0.0, 1.0, False, False)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text-number": ({"text": 17}, "a value of the type int as its text"),
    "goal-none": ({"goal": None}, "a value of the type NoneType as its goal"),
    "text-long": ({"text": "x" * (LONGEST_TEXT + 1)}, "100,001 characters at once"),
    "text-surrogate": ({"text": "a \udcff"}, "surrogates"),
    "command-number": ({"admissible": (1, "wait")}, "a command that is not text: 1"),
    "command-surrogate": ({"admissible": ("go \udcff",)}, "surrogates"),
    "command-lines": ({"admissible": ("go\nnorth",)}, r"the command 'go\\nnorth', and a command is one line"),
    "command-nul": ({"admissible": ("go\0north",)}, "one line of text"),
    "command-empty": ({"admissible": ("",)}, "the command '', and a command is one line"),
    "commands-many": ({"admissible": tuple(map(str, range(MOST_COMMANDS + 1)))}, "1,001 commands at once"),
    "score-nan": ({"score": float("nan")}, "the score nan of 1"),
    "score-most": ({"max_score": float("inf")}, "the score 0 of inf"),
}


class Fixed:
    """An engine with one frame."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def start(self, seed: int) -> Frame:
        return RIGHT

    def act(self, command: str) -> Frame:
        return self.frame

    def walkthrough(self) -> None:
        return None

    def close(self) -> None: ...


@pytest.mark.parametrize("name", WRONG)
def test_a_frame_that_no_policy_can_be_shown_is_refused_with_the_name_of_its_game(name: str) -> None:
    changed, message = WRONG[name]
    game = RuledGame(Fixed(replace(RIGHT, **changed)), 5, "'maze size=3'")
    game.reset(0)
    with pytest.raises(GameError, match=f"^the game 'maze size=3' .*{message}"):
        game.step("wait")


def test_the_largest_frames_and_other_scripts_are_shown() -> None:
    most: dict[str, Any] = {
        "admissible": tuple(map(str, range(MOST_COMMANDS))),
        "text": "ä" * LONGEST_TEXT,
        "goal": "出口 🚪",
    }
    game = RuledGame(Fixed(replace(RIGHT, **most)), 5)
    game.reset(0)
    assert len(game.step("wait").admissible) == MOST_COMMANDS


def environment(step: Any = (0, 0.0, False, False, {}), commands: Any = lambda *_: {"go": 1}) -> RuledGame:
    made = SimpleNamespace(reset=lambda seed: (0, {}), step=lambda action: step)
    family = environment_family(lambda: made, lambda *_: "A room.", commands)
    return RuledGame(family.engine("maze", {}, Path()), 5)


@pytest.mark.parametrize("reward", ["one", None, float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused_with_what_step_returned(reward: Any) -> None:
    game = environment((0, reward, False, False, {}))
    game.reset(0)
    with pytest.raises(GameError, match=r"`step` of SimpleNamespace returns \(0, .*the reward as a finite number"):
        game.step("go")


def test_a_step_of_another_shape_is_refused_and_what_is_shown_of_it_is_short() -> None:
    game = environment((0, "x" * 10_000))
    game.reset(0)
    with pytest.raises(GameError, match="has to return an observation") as refusal:
        game.step("go")
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("commands", [lambda *_: None, lambda *_: ["go"]])
def test_commands_without_actions_are_refused(commands: Callable[..., Any]) -> None:
    with pytest.raises(GameError, match=r"`commands` returns (NoneType|list), and has to return the actions"):
        environment(commands=commands).reset(0)


def test_games_that_are_over_before_their_first_turn_are_refused_before_a_cycle() -> None:
    games = SimpleNamespace(play=lambda *_: [], plan=SimpleNamespace(rehearsal=[None] * 4))
    with pytest.raises(GameError, match="all 4 rehearsal games are over before their first turn"):
        GamesPublic(cast(PublicGames, games)).uniform()
