"""Frozen Lake: cross a board from corner to corner without stepping on a hole. The rules are not told.

After the game of the OEL paper (arXiv 2603.16856), without slipping. Only 19 boards of 3x3 with two holes can be
crossed: what is held out has to be boards, not seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .game import Frame
from .grids import BUMP, GOAL, MOVES, Square, ahead, read, share_of, shortest, show

PLAYER, HOLE, EXIT = "P", "O", "X"
HOLES = {3: 2, 4: 4, 5: 6}
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Lake:
    """One board; the way leads from the top left corner to the bottom right one."""

    size: int
    holes: frozenset[Square]

    @property
    def exit(self) -> Square:
        return self.size - 1, self.size - 1

    def step(self, square: Square, command: str) -> Square:
        """Return where a move leads: nowhere, at the edge."""
        row, column = ahead(square, command)
        return (row, column) if 0 <= row < self.size and 0 <= column < self.size else square

    def way(self, start: Square = (0, 0)) -> tuple[str, ...] | None:
        """Return the shortest way to the exit, or None."""

        def follow(square: Square, command: str) -> Square | None:
            after = self.step(square, command)
            return None if after in self.holes else after

        return shortest(start, follow, lambda square: square == self.exit)

    def show(self, player: Square) -> str:
        marks = {**dict.fromkeys(self.holes, HOLE), self.exit: EXIT}
        return show(self.size, {**marks, player: PLAYER}, player)


class FrozenLakeEngine:
    """One board under the feet of one player."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._size, self._split = int(settings["size"]), str(settings["split"])
        self._holes = int(settings["holes"]) or HOLES[self._size]
        self._lake: Lake | None = None
        self._player: Square = (0, 0)

    def start(self, seed: int) -> Frame:
        """Start on the board of this seed."""
        self._lake, self._player = draw_lake(self._size, self._holes, self._split, seed), (0, 0)
        return self._frame(self._lake, self._lake.show(self._player))

    def act(self, command: str) -> Frame:
        """Move; a wall stops the move."""
        lake, before = self._playing(), self._player
        self._player = lake.step(before, command)
        return self._frame(lake, BUMP if self._player == before else lake.show(self._player))

    def walkthrough(self) -> tuple[str, ...] | None:
        return self._playing().way()

    def close(self) -> None:
        self._lake = None

    def _playing(self) -> Lake:
        if self._lake is None:
            raise GameError("reset the game before the first command")
        return self._lake

    def _frame(self, lake: Lake, text: str) -> Frame:
        won, lost = self._player == lake.exit, self._player in lake.holes
        return Frame(text, GOAL, tuple(MOVES), float(won), 1.0, won, lost)


def draw_lake(size: int, holes: int, split: str, seed: int) -> Lake:
    """Draw a board of a split that can be crossed.

    Raises
    ------
    GameError
        If there is none, or next to none.
    """
    rng = np.random.default_rng(seed)
    squares = [(row, column) for row in range(size) for column in range(size)][1:-1]
    for _ in range(DRAWS):
        picks = rng.choice(len(squares), size=holes, replace=False)
        lake = Lake(size, frozenset(squares[pick] for pick in picks))
        if lake.way() is not None and split in ("all", share_of(lake.show((0, 0)))):
            return lake
    raise GameError(f"no board of {size}x{size} with {holes} holes can be crossed in split {split!r}: use fewer holes")


def solve_lake(text: str) -> str:
    """Return the first move of the shortest way over a board that is seen; of no use once the game is over."""
    marks = read(text)
    squares = {mark: square for square, mark in marks.items()}
    holes = frozenset(square for square, mark in marks.items() if mark == HOLE)
    way = Lake(squares[EXIT][0] + 1, holes).way(squares[PLAYER])
    return way[0] if way else next(iter(MOVES))


def check_lake(settings: Mapping[str, Setting]) -> str:
    """Say what is wrong with a combination of settings, or nothing."""
    size, holes = int(settings["size"]), int(settings["holes"])
    most = (size - 1) ** 2  # what is left is one way along the edge
    return f"holes={holes} leave no way over {size}x{size} squares, {most} can" if holes > most else ""


def make_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> FrozenLakeEngine:
    """Build the engine; nothing is compiled or cached."""
    return FrozenLakeEngine(settings)
