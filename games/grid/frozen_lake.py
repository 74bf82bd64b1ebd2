"""Frozen Lake: cross a board from corner to corner without stepping on a hole. The player is not told the rules.

The game of the OEL paper (arXiv 2603.16856), without slipping. Only 19 boards of 3x3 squares with two holes can be
crossed, so that splits have to divide boards, not seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...protocol.errors import GameError
from ...protocol.play import Setting
from .board import MOVES, BoardEngine, Square, board_from_text, board_to_text, neighbour, shortest_solution, split_of

PLAYER, HOLE, EXIT = "P", "O", "X"
HOLES = {3: 2, 4: 4, 5: 6}  # default number of holes by board size
DRAWS = 10_000
START: Square = (0, 0)


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

    def solution(self, start: Square = START) -> tuple[str, ...] | None:
        """Return the fewest moves to the exit that avoid all holes, or None if there are none."""

        def step(square: Square, move: str) -> Square | None:
            after = self.step(square, move)
            return None if after in self.holes else after

        return shortest_solution(start, step, self.won)

    def won(self, square: Square) -> bool:
        return square == self.exit

    def lost(self, square: Square) -> bool:
        return square in self.holes

    def to_text(self, player: Square) -> str:
        symbols = {**dict.fromkeys(self.holes, HOLE), self.exit: EXIT, player: PLAYER}
        return board_to_text(self.size, symbols, player)


class FrozenLakeEngine(BoardEngine[Square]):
    """One board and the position of its player."""

    def draw(self, seed: int) -> tuple[Lake, Square]:
        """Return the board of a seed; the player starts in the top left corner."""
        size, holes = int(self.settings["size"]), int(self.settings["holes"])
        return draw_lake(size, holes or HOLES[size], str(self.settings["split"]), seed), START


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
        if lake.solution() is not None and split in ("all", split_of(lake.to_text(START))):
            return lake
    raise GameError(f"no board of {size}x{size} with {holes} holes can be crossed in split {split!r}: use fewer holes")


def next_move(text: str) -> str:
    """Return the first move of a shortest path on the board shown; any move if the game is over."""
    symbols = board_from_text(text)
    squares = {symbol: square for square, symbol in symbols.items()}
    holes = frozenset(square for square, symbol in symbols.items() if symbol == HOLE)
    path = Lake(squares[EXIT][0] + 1, holes).solution(squares[PLAYER])
    return path[0] if path else next(iter(MOVES))


def check_lake(settings: Mapping[str, Setting]) -> str:
    """Return why a combination of settings cannot be used, or an empty string."""
    size, holes = int(settings["size"]), int(settings["holes"])
    most = (size - 1) ** 2  # leaves one path along the edge
    return f"holes={holes} leave no path across {size}x{size} squares; at most {most} do" if holes > most else ""
