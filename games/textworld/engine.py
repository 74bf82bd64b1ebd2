"""The engine of TextWorld games: plays a compiled game through TextWorld's interpreter, and cleans its texts."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ...protocol.situation import ROOM_LINE
from ..game import Frame
from .compiled import story_file
from .generate import borrowed_textworld

INFOS = ("feedback", "objective", "admissible_commands", "score", "max_score", "won", "lost")
# The end of an episode: "*** The End ***", the score, and a question what to do next.
_ENDING = re.compile(r"\s*\*\*\* [^*\n]+ \*\*\*.*\Z", re.DOTALL)
_SCORE_LINE = re.compile(r"^\s*(Your score has just gone (up|down) by|You scored ).*$", re.MULTILINE)
# The input prompt, followed by the interpreter's status bar: "> ...   -= Kitchen =-0/1".
_PROMPT = re.compile(r"^>(\s*|\s.*-=.*=-\s*-?\d+/\d+\s*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"[ \t]*\n\s*\n[ \t]*")
_GREETING = re.compile(r"\A.*!\s+(?=\S)", re.DOTALL)
_PREAMBLE = re.compile(r"\A(Your task for today is to|Your objective is to|Please)\s+", re.IGNORECASE)
_HUNGRY = "You are hungry! "


class TextWorldEngine:
    """One interpreter; it holds a game from `start` until the next `start` or `close`."""

    def __init__(self, family: str, settings: Mapping[str, Setting], cache: Path) -> None:
        self._family = family
        self._settings = settings
        self._cache = cache
        self._env: Any = None
        self._state: Any = None

    def start(self, seed: int) -> Frame:
        """Start the instance of this seed; generate and compile it first if the cache lacks it.

        Raises
        ------
        GameError
            If the game cannot be generated or started. Every interpreter copies a library to the temporary folder.
        """
        story = story_file(self._family, self._settings, seed, self._cache)
        self.close()
        try:
            with borrowed_textworld(seed) as textworld:
                infos = textworld.EnvInfos(**dict.fromkeys(INFOS, True), extras=["walkthrough"])
                self._env = textworld.start(str(story), infos)
                self._state = self._env.reset()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise GameError(f"{story} cannot be started: {error}; make room in {folder}, or set TMPDIR") from error
        return self._frame(first_room(self._state["feedback"]))

    def act(self, command: str) -> Frame:
        """Execute an admissible command."""
        self._state = self._env.step(command)[0]
        return self._frame(clean(self._state["feedback"]))

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return the walkthrough that TextWorld stored with the game."""
        commands = self._state.get("extra.walkthrough") if self._state is not None else None
        return tuple(commands) if commands else None

    def close(self) -> None:
        """Stop the interpreter."""
        if self._env is not None:
            self._env.close()
        self._env = self._state = None

    def _frame(self, text: str) -> Frame:
        state = self._state
        return Frame(
            text=text,
            goal=goal_of(state["objective"]),
            admissible=tuple(state["admissible_commands"]),
            score=float(state["score"] or 0),
            max_score=float(state["max_score"]),
            won=bool(state["won"]),
            lost=bool(state["lost"]),
        )


def clean(feedback: str) -> str:
    """Return the reply to a command without score lines, ending, prompt and repeated blank lines."""
    text = _PROMPT.sub("", _SCORE_LINE.sub("", _ENDING.sub("", feedback)))
    return _BLANK_LINES.sub("\n", text).strip()


def first_room(feedback: str) -> str:
    """Return the description of the first room: drop everything before its ``-= Name =-`` line."""
    room = ROOM_LINE.search(feedback)
    return clean(feedback[room.start() :] if room else feedback)


def goal_of(objective: str) -> str:
    """Return the task that an objective states, e.g. ``"Recover the coin from the floor of the bedroom."``."""
    text = " ".join(objective.split())
    if text.startswith(_HUNGRY):
        return text.removeprefix(_HUNGRY)
    task = _PREAMBLE.sub("", _GREETING.sub("", text))
    return task[:1].upper() + task[1:]
