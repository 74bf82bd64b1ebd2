"""The rules that all games share, tested on an engine that counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.games import scripted
from fedoel.games.game import REFUSAL, Frame, RuledGame
from fedoel.protocol.errors import GameError
from fedoel.protocol.play import GameSpec


class Ladder:
    """Climb three steps to win; fall to lose."""

    def __init__(self) -> None:
        self.height = 0
        self.executed: list[str] = []
        self.closed = 0

    def start(self, seed: int) -> Frame:
        self.height = 0
        return self._frame(f"seed {seed}")

    def act(self, command: str) -> Frame:
        self.executed.append(command)
        self.height = self.height + 1 if command == "climb" else -1
        return self._frame(command)

    def walkthrough(self) -> tuple[str, ...] | None:
        return ("climb",) * 3

    def close(self) -> None:
        self.closed += 1

    def _frame(self, text: str) -> Frame:
        won, lost = self.height == 3, self.height < 0
        return Frame(text, "Climb.", ("climb", "fall"), float(self.height), 3.0, won, lost)


def test_an_episode_that_is_won_in_the_last_turn_is_not_truncated() -> None:
    game = RuledGame(Ladder(), max_turns=3)
    game.reset(1)
    last = [game.step(command) for command in game.walkthrough() or ()][-1]
    assert (last.won, last.lost, last.truncated, last.done, last.turn) == (True, False, False, True, 3)


def test_the_turn_limit_truncates() -> None:
    game = RuledGame(Ladder(), max_turns=2)
    game.reset(1)
    assert not game.step("climb").done
    last = game.step("climb")
    assert (last.won, last.lost, last.truncated, last.done) == (False, False, True, True)


def test_an_episode_ends_when_no_command_is_left() -> None:
    class Summit(Ladder):
        def act(self, command: str) -> Frame:
            return replace(super().act(command), admissible=())

    game = RuledGame(Summit(), max_turns=9)
    game.reset(1)
    last = game.step("climb")
    assert (last.won, last.lost, last.truncated, last.done) == (False, False, False, True)


def test_a_loss_ends_the_episode() -> None:
    game = RuledGame(Ladder(), max_turns=9)
    game.reset(1)
    last = game.step("fall")
    assert (last.won, last.lost, last.truncated, last.done) == (False, True, False, True)


@pytest.mark.parametrize("command", ["", "Climb", "climb ", " climb", "climb\n", "climb. climb", "cl\0imb", "save"])
def test_an_inadmissible_command_uses_up_a_turn_and_is_not_forwarded(command: str) -> None:
    engine = Ladder()
    game = RuledGame(engine, max_turns=2)
    game.reset(1)
    refused = game.step(command)
    assert (refused.valid, refused.text, refused.turn, refused.score, engine.executed) == (False, REFUSAL, 1, 0.0, [])
    assert game.step(command).truncated
    assert engine.executed == []


def test_a_valid_command_after_a_refused_one_is_valid_again() -> None:
    game = RuledGame(Ladder(), max_turns=5)
    game.reset(1)
    assert not game.step("dance").valid
    assert game.step("climb").valid


def test_stepping_outside_of_an_episode_is_an_error() -> None:
    game = RuledGame(Ladder(), max_turns=1)
    with pytest.raises(GameError, match="reset the game before the first"):
        game.step("climb")
    with pytest.raises(GameError, match="before asking"):
        game.walkthrough()
    game.reset(1)
    game.step("climb")
    with pytest.raises(GameError, match="over"):
        game.step("climb")
    assert game.reset(2).turn == 0


def test_redundant_commands_of_a_walkthrough_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Redundant(Ladder):
        def walkthrough(self) -> tuple[str, ...]:
            return ("climb", "open the open door", "climb", "climb")

    monkeypatch.setattr(scripted, "build_game", lambda spec, cache: RuledGame(Redundant(), spec.max_turns))
    trajectory = scripted.play_walkthrough(GameSpec("ladder", (), 3), 1, Path())
    assert trajectory.won and len(trajectory.turns) == 3


def test_closing_twice_is_allowed() -> None:
    engine = Ladder()
    game = RuledGame(engine, max_turns=1)
    game.close()
    game.close()
    assert engine.closed == 2
