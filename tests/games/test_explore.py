"""Exploration gets behind commands that uniform play seldom gives in a row, and knows what it has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.games import explore as module
from fedoel.games.explore import COMMANDS, ONWARD, explore, state_key
from fedoel.games.game import Frame, Game, RuledGame
from fedoel.protocol.play import GameSpec
from fedoel.protocol.situation import Situation

TIDY = GameSpec.parse("tidy things=2 turns=12")
LOCK = GameSpec.parse("tidy turns=20")  # stands for the lock, whose turn limit it has
COLOURS = ("red", "blue", "green", "black", "white", "amber")


class Lock:
    """A lock that opens after four colours in the right order; a wrong one sets it back."""

    def __init__(self, slips: float = 0.0) -> None:
        self.slips, self.given, self.rng = slips, 0, np.random.default_rng(0)
        self.code: list[str] = []
        self.solved = 0

    def start(self, seed: int) -> Frame:
        self.code = [str(colour) for colour in np.random.default_rng(seed).choice(COLOURS, 4)]
        self.solved = 0
        return self._frame()

    def act(self, command: str) -> Frame:
        self.given += 1
        right = command == f"press {self.code[self.solved]}" and self.rng.random() >= self.slips
        self.solved = self.solved + 1 if right else 0
        return self._frame()

    def walkthrough(self) -> None:
        return None

    def close(self) -> None:
        pass

    def _frame(self) -> Frame:
        won = self.solved == len(self.code)
        text = f"-= Cellar =-\nA lamp shows {self.solved}."
        return Frame(text, "Open it.", tuple(f"press {c}" for c in COLOURS), float(won), 1.0, won, False)


def explored(monkeypatch: pytest.MonkeyPatch, lock: Lock, spec: GameSpec = LOCK, seed: int = 0) -> list[Situation]:
    def build(spec: GameSpec, cache: Path) -> Game:
        return RuledGame(lock, spec.max_turns)

    monkeypatch.setattr(module, "build_game", build)
    return explore(spec, seed, np.random.default_rng(seed), Path())


@pytest.mark.parametrize("seed", range(8))
def test_every_state_of_a_lock_is_found(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Uniform play finds the last of them in one of 216 attempts."""
    states = explored(monkeypatch, Lock(), seed=seed)
    assert {state.place_text[-2] for state in states} == set("0123")
    assert len({state_key(state) for state in states}) == len(states)


def test_exploration_ends_although_a_game_does_not_repeat_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(slips=0.3)
    assert explored(monkeypatch, lock)
    assert lock.given <= COMMANDS + ONWARD + LOCK.max_turns


def test_a_game_of_one_turn_has_its_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = explored(monkeypatch, Lock(), GameSpec.parse("tidy turns=1"))
    assert only.turn == 0


def test_it_is_a_function_of_its_generator_and_states_are_within_the_turn_limit(tmp_path: Path) -> None:
    first, again, other = (explore(TIDY, 5, np.random.default_rng(seed), tmp_path) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) > 20 and all(state.turn < TIDY.max_turns for state in first)


def test_states_with_rare_words_come_first(tmp_path: Path) -> None:
    """Of the states of a home, few are those in which something is carried, and they have words of their own."""
    positions = []
    for seed in range(12):
        states = explore(TIDY, seed, np.random.default_rng(seed), tmp_path)
        positions += [index / len(states) for index, state in enumerate(states) if state.turn == 0]
    assert np.mean(positions) > 0.5
