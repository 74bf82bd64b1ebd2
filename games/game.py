"""The game protocols: `Game` for players, `Engine` for what differs between families, `RuledGame` between the two.

Only commands that equal an admissible command reach an engine, unless the engine says that it takes any text.
Interpreters of text games crash on a NUL byte, write files on ``save``, and split a line at full stops into several
commands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Protocol

from ..protocol.errors import GameError
from ..protocol.play import Observation
from ..protocol.situation import Memory, Situation

REFUSAL = "That is not possible here."
# A prompt lists all commands, and a device holds the probability of each: these bounds are far above what a game needs.
MOST_COMMANDS, LONGEST_TEXT = 1000, 100_000


class Game(Protocol):
    """A game as a player sees it."""

    def reset(self, seed: int) -> Observation:
        """Start an episode of the instance with this seed."""

    def step(self, command: str) -> Observation:
        """Execute one command."""

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return commands that win the current instance, or None if the family has no walkthroughs.

        Some may be redundant, and then not admissible when their turn comes: skip those.
        """

    def close(self) -> None:
        """Release all resources. Closing twice is allowed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The state of an engine after a command: the part of an `Observation` that does not depend on the turn limit.

    An engine that says `open` judges any text, other than an empty one: its next frame is not `valid` if it did not
    understand it. Its admissible commands are examples of what it understands.
    """

    text: str
    goal: str
    admissible: tuple[str, ...]
    score: float
    max_score: float
    won: bool
    lost: bool
    open: bool = False
    valid: bool = True


def situation_of(memory: Memory, observation: Observation) -> Situation:
    """Return what a player who remembers the episode so far sees in an observation, and remember it."""
    return memory.see(observation.text, observation.admissible, observation.turn, open_answer=observation.open)


class Engine(Protocol):
    """The dynamics of a game family. `act` is not called after the game is over.

    It gets admissible commands only, or any text after a frame that is open.
    """

    def start(self, seed: int) -> Frame: ...

    def act(self, command: str) -> Frame: ...

    def walkthrough(self) -> tuple[str, ...] | None: ...

    def close(self) -> None: ...


class RuledGame:
    """An engine under the rules that all games share: admissible commands only, a turn limit, no step after the end.

    An episode ends when it is won or lost, when the engine lists no more commands, or at the turn limit.

    Parameters
    ----------
    engine
        The dynamics.
    max_turns
        Number of commands, inadmissible ones included, after which an episode is truncated.
    name
        Of the game, for errors.
    """

    def __init__(self, engine: Engine, max_turns: int, name: str = "") -> None:
        self._engine = engine
        self._max_turns = max_turns
        self._name = name
        self._observation: Observation | None = None

    def reset(self, seed: int) -> Observation:
        """Start an episode of the instance with this seed; raises `GameError` if its first frame is none."""
        self._observation = self._observe(self._engine.start(seed), turn=0)
        return self._observation

    def step(self, command: str) -> Observation:
        """Execute one command. An inadmissible command is not forwarded to the engine but uses up a turn.

        Raises
        ------
        GameError
            If no episode was started, or it is over, or the engine's frame cannot be shown to a policy.
        """
        before = self._observation
        if before is None:
            raise GameError("reset the game before the first command")
        if before.done:
            raise GameError("the episode is over: reset the game before the next command")
        turn = before.turn + 1
        if command in before.admissible or (before.open and command):
            self._observation = self._observe(self._engine.act(command), turn)
        else:
            ended = turn >= self._max_turns
            self._observation = replace(before, text=REFUSAL, valid=False, turn=turn, done=ended, truncated=ended)
        return self._observation

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return commands that win the current instance, or None if the family has no walkthroughs."""
        if self._observation is None:
            raise GameError("reset the game before asking for its walkthrough")
        return self._engine.walkthrough()

    def close(self) -> None:
        """Close the engine. Closing twice is allowed."""
        self._observation = None
        self._engine.close()

    def _observe(self, frame: Frame, turn: int) -> Observation:
        if problem := problem_of(frame):
            raise GameError(f"the game {self._name or type(self._engine).__name__} {problem}")
        over = frame.won or frame.lost or not (frame.admissible or frame.open)
        truncated = not over and turn >= self._max_turns
        seen = {field.name: getattr(frame, field.name) for field in fields(frame)}  # not a copy, as `asdict` makes
        return Observation(**seen, done=over or truncated, truncated=truncated, turn=turn)


def problem_of(frame: Frame) -> str:
    """Say what makes a frame one that no policy can be shown, such as text that is a number; empty if nothing does.

    Games can be plug-ins, whose mistakes would come out much later, or never: a score that is not a number is a loss.
    """
    for name in ("text", "goal"):
        if not isinstance(text := getattr(frame, name), str):
            return f"gives a value of the type {type(text).__name__} as its {name}, and a policy reads text"
        if len(text) > LONGEST_TEXT:
            return f"shows {len(text):,} characters at once, and a policy reads {LONGEST_TEXT:,} at most"
    if not all(isinstance(command, str) for command in frame.admissible):
        return f"has a command that is not text: {next(c for c in frame.admissible if not isinstance(c, str))!r}"
    if len(frame.admissible) > MOST_COMMANDS:
        return f"lists {len(frame.admissible):,} commands at once, and a policy chooses among {MOST_COMMANDS:,} at most"
    wrong = [command for command in frame.admissible if "\0" in command or len(command.splitlines()) != 1]
    if wrong:  # a prompt has a command a line
        return f"has the command {wrong[0]!r}, and a command is one line of text"
    if not is_utf8("\n".join((frame.text, frame.goal, *frame.admissible))):
        return "shows characters that are not in Unicode (surrogates), which no file and no message can hold"
    if not (math.isfinite(frame.score) and math.isfinite(frame.max_score)):
        return f"has the score {frame.score:g} of {frame.max_score:g}, which is no number"
    return ""


def is_utf8(text: str) -> bool:
    """Whether a text can be written to a file or sent in a message."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
