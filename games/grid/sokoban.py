"""Sokoban with one box: push it onto the target. The player is not told the rules.

The game of the OEL paper (arXiv 2603.16856): 6x6 squares, walls included, and five turns. Every board can be solved
within the setting `moves`, so that every loss is due to the player.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...protocol.errors import GameError
from ...protocol.play import Setting
from .board import MOVES, BoardEngine, Square, board_from_text, board_to_text, neighbour, shortest_solution, split_of

PLAYER, BOX, TARGET, WALL = "P", "B", "X", "#"
DRAWS = 10_000
State = tuple[Square, Square]  # squares of the player and of the box


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The fixed part of one board: its walls and the target of the box."""

    size: int
    walls: frozenset[Square]
    target: Square

    def step(self, state: State, move: str) -> State:
        """Return the state after a move; a wall ahead of the player or of a pushed box blocks the move."""
        player, box = state
        ahead = neighbour(player, move)
        box_after = neighbour(box, move) if ahead == box else box
        return state if ahead in self.walls or box_after in self.walls else (ahead, box_after)

    def solution(self, state: State) -> tuple[str, ...] | None:
        """Return the fewest moves that bring the box to the target, or None if there are none."""
        return shortest_solution(state, self.step, self.won)

    def won(self, state: State) -> bool:
        return state[1] == self.target

    def lost(self, state: State) -> bool:
        """Sokoban cannot be lost."""
        return False

    def to_text(self, state: State) -> str:
        symbols = {**dict.fromkeys(self.walls, WALL), self.target: TARGET, state[1]: BOX, state[0]: PLAYER}
        return board_to_text(self.size, symbols, state[0])


class SokobanEngine(BoardEngine[State]):
    """One board with one player and one box."""

    def draw(self, seed: int) -> tuple[Warehouse, State]:
        """Return the board of a seed, and where its player and its box start."""
        return draw_warehouse(self.settings, seed)


def draw_warehouse(settings: Mapping[str, Setting], seed: int) -> tuple[Warehouse, State]:
    """Draw a board of the split, and its start, that can be solved within the setting `moves`.

    Raises
    ------
    GameError
        If none is among `DRAWS` random boards.
    """
    size, walls, moves = (int(settings[name]) for name in ("size", "walls", "moves"))
    rng = np.random.default_rng(seed)
    inside = [(row, column) for row in range(1, size - 1) for column in range(1, size - 1)]
    border = {(r, c) for r in range(size) for c in range(size)} - set(inside)
    for _ in range(DRAWS):
        player, box, target, *blocks = (inside[i] for i in rng.choice(len(inside), size=3 + walls, replace=False))
        warehouse, state = Warehouse(size, frozenset([*border, *blocks]), target), (player, box)
        solution = warehouse.solution(state)
        if not solution or len(solution) > moves:
            continue
        if settings["split"] in ("all", split_of(warehouse.to_text(state))):
            return warehouse, state
    raise GameError(f"no board with {settings} can be solved: use fewer walls or more moves")


def next_move(text: str) -> str:
    """Return the first move of a shortest solution of the board shown."""
    symbols = board_from_text(text)
    squares = {symbol: square for square, symbol in symbols.items()}
    walls = frozenset(square for square, symbol in symbols.items() if symbol == WALL)
    # A player on the target hides it. Any step that leaves the box alone uncovers it.
    target = squares.get(TARGET)
    warehouse = Warehouse(max(row for row, _ in walls) + 1, walls, target or (0, 0))
    state = squares[PLAYER], squares[BOX]
    solution = warehouse.solution(state) if target else None
    if solution:
        return solution[0]
    return next((move for move in MOVES if warehouse.step(state, move)[1] == state[1]), "go up")
