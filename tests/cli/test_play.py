"""The verb `play`: an episode as a person sees it."""

from __future__ import annotations

import numpy as np

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
