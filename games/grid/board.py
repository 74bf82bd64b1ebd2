"""What grid games share: squares, moves, the text form of a board, its split, and the search for a solution."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import TypeVar

from ...protocol.situation import ROOM_LINE

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
