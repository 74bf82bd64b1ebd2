"""What grid games share: squares, moves, the text form of a board, its split, its engine, the search for a solution."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ...protocol.situation import ROOM_LINE
from ..game import Frame

Square = tuple[int, int]  # row, column
State = TypeVar("State", bound=Hashable)

MOVES: Mapping[str, Square] = MappingProxyType(
    {"go up": (-1, 0), "go down": (1, 0), "go left": (0, -1), "go right": (0, 1)}
)
FLOOR = "."
GOAL = "Find out what this board asks for, and do it."
"""The rules are hidden, as in the OEL paper's games: a player sees symbols on a board and learns from the outcomes."""

BUMP = "Nothing happens."
SPLIT_ENDS = (("train", 0.6), ("valid", 0.8), ("test", 1.0))


class Board(Protocol[State]):
    """The fixed part of one game on a grid; a state says where its movable parts are."""

    def step(self, state: State, move: str) -> State:
        """Return the state after a move; a move that is blocked returns the same state."""

    def solution(self, state: State) -> tuple[str, ...] | None:
        """Return the fewest moves that win from a state, or None if there are none."""

    def won(self, state: State) -> bool:
        """Whether a state wins."""

    def lost(self, state: State) -> bool:
        """Whether a state loses."""

    def to_text(self, state: State) -> str:
        """Return the board as the player sees it."""


class BoardEngine(Generic[State]):
    """The engine of one board; each game draws its boards in `draw`."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self.settings = settings
        self._game: tuple[Board[State], State, State] | None = None  # the board, the first state, and the state now

    def draw(self, seed: int) -> tuple[Board[State], State]:
        """Return the board of a seed, and its first state."""
        raise NotImplementedError

    def start(self, seed: int) -> Frame:
        """Start on the board of this seed."""
        board, state = self.draw(seed)
        self._game = board, state, state
        return self._frame(board, state, board.to_text(state))

    def act(self, command: str) -> Frame:
        """Move the player; a move that is blocked does nothing."""
        board, first, before = self._started()
        state = board.step(before, command)
        self._game = board, first, state
        return self._frame(board, state, BUMP if state == before else board.to_text(state))

    def walkthrough(self) -> tuple[str, ...] | None:
        board, first, _ = self._started()
        return board.solution(first)

    def close(self) -> None:
        self._game = None

    def _started(self) -> tuple[Board[State], State, State]:
        if self._game is None:
            raise GameError("reset the game before the first command")
        return self._game

    def _frame(self, board: Board[State], state: State, text: str) -> Frame:
        won = board.won(state)
        return Frame(text, GOAL, tuple(MOVES), float(won), 1.0, won, board.lost(state))


def neighbour(square: Square, move: str) -> Square:
    """Return the adjacent square in the direction of a move."""
    rows, columns = MOVES[move]
    return square[0] + rows, square[1] + columns


def board_to_text(size: int, symbols: Mapping[Square, str], player: Square) -> str:
    """Write a square board; its first line names the player's square in the form in which text games name a room."""
    rows = (" ".join(symbols.get((row, column), FLOOR) for column in range(size)) for row in range(size))
    return "\n".join([f"-= row {player[0] + 1}, column {player[1] + 1} =-", *rows])


def board_from_text(text: str) -> dict[Square, str]:
    """Read the symbols, by square, of a board that `board_to_text` wrote."""
    rows = ROOM_LINE.sub("", text).strip().splitlines()
    return {(r, c): symbol for r, row in enumerate(rows) for c, symbol in enumerate(row.split()) if symbol != FLOOR}


def shortest_solution(
    start: State, step: Callable[[State, str], State | None], won: Callable[[State], bool]
) -> tuple[str, ...] | None:
    """Search breadth-first for the fewest moves to a winning state.

    Parameters
    ----------
    start
        State before the first move.
    step
        Returns the state after a move, or None for a move to leave out.
    won
        Whether a state wins.

    Returns
    -------
    tuple of str, or None
        The moves; None if no winning state can be reached.
    """
    paths: dict[State, tuple[str, ...]] = {start: ()}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if won(state):
            return paths[state]
        for move in MOVES:
            after = step(state, move)
            if after is not None and after not in paths:
                paths[after] = (*paths[state], move)
                queue.append(after)
    return None


def split_of(board: str) -> str:
    """Return the split of a board, a function of its text: different seeds may draw the same board."""
    fraction = int.from_bytes(hashlib.sha256(board.encode()).digest()[:4], "big") / 2**32
    return next(name for name, end in SPLIT_ENDS if fraction < end)
