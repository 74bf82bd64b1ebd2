"""Play compiled TextWorld games through TextWorld's own interface."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .game import Frame
from .generate import borrowed_textworld
from .store import game_file
from .text import clean, goal_of, opening


class TextWorldEngine:
    """One interpreter; it holds a game from `start` until the next `start` or `close`."""

    def __init__(self, family: str, settings: Mapping[str, Setting], cache: Path) -> None:
        self._family = family
        self._settings = settings
        self._cache = cache
        self._env: Any = None
        self._state: Any = None

    def start(self, seed: int) -> Frame:
        """Start the game of this seed, made first if the cache does not hold it.

        Raises
        ------
        GameError
            If it cannot be made or started: each interpreter is a copy of a library in the temporary folder.
        """
        story = game_file(self._family, self._settings, seed, self._cache)
        self.close()
        try:
            with borrowed_textworld(seed) as textworld:
                self._env = textworld.start(str(story), _infos(textworld))
                self._state = self._env.reset()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise GameError(f"{story} cannot be started: {error}; make room in {folder}, or set TMPDIR") from error
        return self._frame(opening(self._state["feedback"]))

    def act(self, command: str) -> Frame:
        """Give a command that is known to be admissible."""
        self._state = self._env.step(command)[0]
        return self._frame(clean(self._state["feedback"]))

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return the commands that TextWorld wrote down when it made the game."""
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


def _infos(textworld: Any) -> Any:
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
