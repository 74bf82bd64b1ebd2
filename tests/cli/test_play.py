"""The verb `play`: an episode as a person sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.cli.play import show
from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory


def test_an_episode_is_shown_with_the_chosen_command_marked() -> None:
    situation = Memory("find the coin", 7).see("-= Hall =-\nA hall.", ("go north", "go south"), 0)
    turn = Turn(situation, np.log(np.array([0.75, 0.25], dtype=np.float32)), 1, 0.0)
    spec = GameSpec.parse("coin-collector level=102 turns=7")
    text = show(Trajectory(spec, 3, "v-1", (turn,), won=True, lost=False, score=1.0))
    assert "Goal: find the coin" in text
    assert "A hall." in text
    assert "  go north ██████████████████        75.0%" in text
    assert "> go south ██████                    25.0%" in text
    assert "won after 1 turn, score 100%" in text
    both = show(Trajectory(spec, 3, "v-1", (turn,), True, False, 1.0), "v-0", [np.log(np.array([0.5, 0.5], "f"))])
    assert "probabilities: of v-0 -> of v-1" in both and "> go south  50.0% -> ██████                    25.0%" in both


def test_what_a_free_policy_has_answered_is_shown_with_its_probabilities() -> None:
    situation = Memory("find the coin", 7).see("-= Hall =-\nA hall.", ("go north", "go south", "wait"), 0)
    situation = replace(situation, alternatives=("dance", "go south"))
    turn = Turn(situation, np.log(np.array([0.75, 0.25], dtype=np.float32)), 0, 0.0, "dance", refused=True)
    text = show(Trajectory(GameSpec.parse("coin-collector turns=7"), 3, "v-1", (turn,), False, False, 0.0))
    assert "> dance    ██████████████████        75.0%" in text and "go north" not in text


@pytest.mark.parametrize("seed", ["-1", "100000000", "9" * 400])
def test_a_seed_that_no_game_has_is_refused_before_a_model_is_loaded(
    seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", "--seed", seed]) == REFUSED
    said = capsys.readouterr().err
    assert "--seed must be from 0 to 99999999, not " in said and len(said) < 200
