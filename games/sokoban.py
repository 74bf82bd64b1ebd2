"""Sokoban with one box: push it onto the mark. The rules are not told.

After the game of the OEL paper (arXiv 2603.16856): 6x6 squares, walls included, and five turns. Every board here can be
solved within `moves` commands, so that what is lost is the player's doing.
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

PLAYER, BOX, TARGET, WALL = "P", "B", "X", "#"
DRAWS = 10_000
State = tuple[Square, Square]  # of the player, of the box


@dataclass(frozen=True, slots=True)
class Warehouse:
    """One board: where the walls are, and where the box belongs."""

    size: int
    walls: frozenset[Square]
    target: Square

    def step(self, state: State, command: str) -> State:
        """Return where player and box are after a move; a wall stops both."""
        player, box = state
        there = ahead(player, command)
        pushed = ahead(box, command) if there == box else box
        return state if there in self.walls or pushed in self.walls else (there, pushed)

    def way(self, state: State) -> tuple[str, ...] | None:
        """Return the fewest moves that bring the box to its place, or None."""
        return shortest(state, self.step, self.won)

    def won(self, state: State) -> bool:
        return state[1] == self.target

    def show(self, state: State) -> str:
        marks = {**dict.fromkeys(self.walls, WALL), self.target: TARGET}
        return show(self.size, {**marks, state[1]: BOX, state[0]: PLAYER}, state[0])


class SokobanEngine:
    """One board with one player and one box."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = settings
        self._store: Warehouse | None = None
        self._start: State = ((0, 0), (0, 0))
        self._now = self._start

    def start(self, seed: int) -> Frame:
        """Start on the board of this seed."""
        self._store, self._start = draw_store(self._settings, seed)
        self._now = self._start
        return self._frame(self._store, self._store.show(self._now))

    def act(self, command: str) -> Frame:
        """Move, and push what is in the way."""
        store, before = self._playing(), self._now
        self._now = store.step(before, command)
        return self._frame(store, BUMP if self._now == before else store.show(self._now))

    def walkthrough(self) -> tuple[str, ...] | None:
        return self._playing().way(self._start)

    def close(self) -> None:
        self._store = None

    def _playing(self) -> Warehouse:
        if self._store is None:
            raise GameError("reset the game before the first command")
        return self._store

    def _frame(self, store: Warehouse, text: str) -> Frame:
        won = store.won(self._now)
        return Frame(text, GOAL, tuple(MOVES), float(won), 1.0, won, lost=False)


def draw_store(settings: Mapping[str, Setting], seed: int) -> tuple[Warehouse, State]:
    """Draw a board of a split that can be solved in time.

    Raises
    ------
    GameError
        If there is none, or next to none.
    """
    size, walls, moves = (int(settings[name]) for name in ("size", "walls", "moves"))
    rng = np.random.default_rng(seed)
    inside = [(row, column) for row in range(1, size - 1) for column in range(1, size - 1)]
    border = {(r, c) for r in range(size) for c in range(size)} - set(inside)
    for _ in range(DRAWS):
        player, box, target, *blocks = (inside[i] for i in rng.choice(len(inside), size=3 + walls, replace=False))
        store, state = Warehouse(size, frozenset([*border, *blocks]), target), (player, box)
        way = store.way(state)
        if way and len(way) <= moves and settings["split"] in ("all", share_of(store.show(state))):
            return store, state
    raise GameError(f"no board with {settings} can be solved: use fewer walls or more moves")


def solve_store(text: str) -> str:
    """Return the first move of the shortest solution of a board that is seen."""
    marks = read(text)
    squares = {mark: square for square, mark in marks.items()}
    walls = frozenset(square for square, mark in marks.items() if mark == WALL)
    # The player may stand on the target, and then nothing shows where it is: any step uncovers it.
    target = squares.get(TARGET)
    store = Warehouse(max(row for row, _ in walls) + 1, walls, target or (0, 0))
    state = squares[PLAYER], squares[BOX]
    way = store.way(state) if target else None
    return way[0] if way else next((move for move in MOVES if store.step(state, move)[1] == state[1]), "go up")


def make_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> SokobanEngine:
    """Build the engine; nothing is compiled or cached."""
    return SokobanEngine(settings)
