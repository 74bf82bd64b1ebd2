"""The engine of TextWorld games: plays a compiled game through TextWorld's interpreter interface."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..game import Frame
from .compiled import story_file
from .generate import borrowed_textworld
from .text import clean, first_room, goal_of


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
                self._env = textworld.start(str(story), _requested_infos(textworld))
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


def _requested_infos(textworld: Any) -> Any:
    return textworld.EnvInfos(
        feedback=True,
        objective=True,
        admissible_commands=True,
        score=True,
        max_score=True,
        won=True,
        lost=True,
        extras=["walkthrough"],
    )
