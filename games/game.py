"""What a game is to a player, and the rules that all games share; what is behind them is an `Engine`.

Only an exact member of the list of admissible commands ever reaches an engine: interpreters of text games crash on
a NUL byte, write files on ``save`` and run several commands from one line when they are joined by a full stop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from ..protocol.errors import GameError
from ..protocol.play import Observation

REFUSAL = "That is not possible here."


class Game(Protocol):
    """A game as a player sees it."""

    def reset(self, seed: int) -> Observation:
        """Start the instance that the seed picks."""
        ...

    def step(self, command: str) -> Observation:
        """Give one command."""
        ...

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return commands that win the instance being played, or None if the family knows none.

        Some may turn out to be needless, and then not admissible, when it is their turn: skip those.
        """
        ...

    def close(self) -> None:
        """Release what the game holds; closing twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """What an engine shows after a command, without any bookkeeping of the episode."""

    text: str
    goal: str
    admissible: tuple[str, ...]
    score: float
    max_score: float
    won: bool
    lost: bool


class Engine(Protocol):
    """The part of a game that differs between families. It may trust the commands that it gets."""

    def start(self, seed: int) -> Frame: ...

    def act(self, command: str) -> Frame: ...

    def walkthrough(self) -> tuple[str, ...] | None: ...

    def close(self) -> None: ...


class RuledGame:
    """An engine played by the rules of every game: exact commands only, a turn limit, and ends that last.

    Parameters
    ----------
    engine
        Where commands go.
    max_turns
        Commands, refused ones included, after which the episode is truncated.
    """

    def __init__(self, engine: Engine, max_turns: int) -> None:
        self._engine = engine
        self._max_turns = max_turns
        self._now: Observation | None = None

    def reset(self, seed: int) -> Observation:
        """Start the instance that the seed picks."""
        self._now = self._observe(self._engine.start(seed), turn=0)
        return self._now

    def step(self, command: str) -> Observation:
        """Give one command; one that is not exactly an admissible command costs a turn and does nothing.

        Raises
        ------
        GameError
            If no episode was started, or it is over.
        """
        now = self._playing()
        turn = now.turn + 1
        if command in now.admissible:
            self._now = self._observe(self._engine.act(command), turn)
        else:
            ended = turn >= self._max_turns
            self._now = replace(now, text=REFUSAL, valid=False, turn=turn, done=ended, truncated=ended)
        return self._now

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return commands that win the instance being played, or None if the family knows none."""
        if self._now is None:
            raise GameError("reset the game before asking for its walkthrough")
        return self._engine.walkthrough()

    def close(self) -> None:
        """Release what the engine holds; closing twice is fine."""
        self._now = None
        self._engine.close()

    def _playing(self) -> Observation:
        if self._now is None:
            raise GameError("reset the game before the first command")
        if self._now.done:
            raise GameError("the episode is over: reset the game before the next command")
        return self._now

    def _observe(self, frame: Frame, turn: int) -> Observation:
        over = frame.won or frame.lost
        truncated = not over and turn >= self._max_turns
        return Observation(
            text=frame.text,
            goal=frame.goal,
            admissible=frame.admissible,
            score=frame.score,
            max_score=frame.max_score,
            done=over or truncated,
            won=frame.won,
            lost=frame.lost,
            truncated=truncated,
            valid=True,
            turn=turn,
        )
