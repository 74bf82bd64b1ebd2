"""Frozen Lake: cross a board from corner to corner without stepping on a hole. The player is not told the rules.

The game of the OEL paper (arXiv 2603.16856), without slipping. Only 19 boards of 3x3 squares with two holes can be
crossed, so that splits have to divide boards, not seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..game import Frame
from .board import BUMP, GOAL, MOVES, Square, board_from_text, board_to_text, neighbour, shortest_solution, split_of

PLAYER, HOLE, EXIT = "P", "O", "X"
HOLES = {3: 2, 4: 4, 5: 6}  # default number of holes by board size
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Lake:
    """One board; the player starts in the top left corner, and the exit is the bottom right corner."""

    size: int
    holes: frozenset[Square]

    @property
    def exit(self) -> Square:
        return self.size - 1, self.size - 1

    def step(self, square: Square, move: str) -> Square:
        """Return the square after a move; a move off the board does nothing."""
        row, column = neighbour(square, move)
        return (row, column) if 0 <= row < self.size and 0 <= column < self.size else square

    def shortest_path(self, start: Square = (0, 0)) -> tuple[str, ...] | None:
        """Return the fewest moves to the exit that avoid all holes, or None if there are none."""

        def step(square: Square, move: str) -> Square | None:
            after = self.step(square, move)
            return None if after in self.holes else after

        return shortest_solution(start, step, lambda square: square == self.exit)

    def to_text(self, player: Square) -> str:
        symbols = {**dict.fromkeys(self.holes, HOLE), self.exit: EXIT, player: PLAYER}
        return board_to_text(self.size, symbols, player)


class FrozenLakeEngine:
    """One board and the position of its player."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._size, self._split = int(settings["size"]), str(settings["split"])
        self._holes = int(settings["holes"]) or HOLES[self._size]
        self._lake: Lake | None = None
        self._player: Square = (0, 0)

    def start(self, seed: int) -> Frame:
        """Start on the board of this seed."""
        self._lake, self._player = draw_lake(self._size, self._holes, self._split, seed), (0, 0)
        return self._frame(self._lake, self._lake.to_text(self._player))

    def act(self, command: str) -> Frame:
        """Move the player; a move off the board does nothing."""
        lake, before = self._started(), self._player
        self._player = lake.step(before, command)
        return self._frame(lake, BUMP if self._player == before else lake.to_text(self._player))

    def walkthrough(self) -> tuple[str, ...] | None:
        return self._started().shortest_path()

    def close(self) -> None:
        self._lake = None

    def _started(self) -> Lake:
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
        If none is among `DRAWS` random boards.
    """
    rng = np.random.default_rng(seed)
    squares = [(row, column) for row in range(size) for column in range(size)][1:-1]
    for _ in range(DRAWS):
        indices = rng.choice(len(squares), size=holes, replace=False)
        lake = Lake(size, frozenset(squares[index] for index in indices))
        if lake.shortest_path() is not None and split in ("all", split_of(lake.to_text((0, 0)))):
            return lake
    raise GameError(f"no board of {size}x{size} with {holes} holes can be crossed in split {split!r}: use fewer holes")


def next_move(text: str) -> str:
    """Return the first move of a shortest path on the board shown; any move if the game is over."""
    symbols = board_from_text(text)
    squares = {symbol: square for square, symbol in symbols.items()}
    holes = frozenset(square for square, symbol in symbols.items() if symbol == HOLE)
    path = Lake(squares[EXIT][0] + 1, holes).shortest_path(squares[PLAYER])
    return path[0] if path else next(iter(MOVES))


def check_lake(settings: Mapping[str, Setting]) -> str:
    """Return why a combination of settings cannot be used, or an empty string."""
    size, holes = int(settings["size"]), int(settings["holes"])
    most = (size - 1) ** 2  # leaves one path along the edge
    return f"holes={holes} leave no path across {size}x{size} squares; at most {most} do" if holes > most else ""


def make_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> FrozenLakeEngine:
    """Return the engine; the cache is not used."""
    return FrozenLakeEngine(settings)
