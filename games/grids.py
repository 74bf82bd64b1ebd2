"""What games on a grid share: squares, moves, how a board is shown and read again, and the shortest way to win."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import TypeVar

from ..protocol.situation import ROOM_LINE

Square = tuple[int, int]
State = TypeVar("State", bound=Hashable)

MOVES: Mapping[str, Square] = MappingProxyType(
    {"go up": (-1, 0), "go down": (1, 0), "go left": (0, -1), "go right": (0, 1)}
)
FLOOR = "."
GOAL = "Find out what this board asks for, and do it."
"""The papers' games hide their rules: a player sees marks on a board, and learns by what happens."""

BUMP = "Nothing happens."
SHARES = (("train", 0.6), ("valid", 0.8), ("test", 1.0))


def ahead(square: Square, command: str) -> Square:
    """Return the square that a move leads to."""
    row, column = MOVES[command]
    return square[0] + row, square[1] + column


def show(size: int, marks: Mapping[Square, str], player: Square) -> str:
    """Draw a square board under a line that says where the player is, as rooms of text games are announced."""
    rows = (" ".join(marks.get((row, column), FLOOR) for column in range(size)) for row in range(size))
    return "\n".join([f"-= row {player[0] + 1}, column {player[1] + 1} =-", *rows])


def read(text: str) -> dict[Square, str]:
    """Read the marks off a board that `show` drew."""
    rows = ROOM_LINE.sub("", text).strip().splitlines()
    return {(r, c): mark for r, row in enumerate(rows) for c, mark in enumerate(row.split()) if mark != FLOOR}


def shortest(
    start: State, follow: Callable[[State, str], State | None], won: Callable[[State], bool]
) -> tuple[str, ...] | None:
    """Search breadth first for the fewest moves that win; None if there are none.

    Parameters
    ----------
    follow
        State after a move, or None where the move should not be made.
    """
    paths: dict[State, tuple[str, ...]] = {start: ()}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if won(state):
            return paths[state]
        for command in MOVES:
            after = follow(state, command)
            if after is not None and after not in paths:
                paths[after] = (*paths[state], command)
                queue.append(after)
    return None


def share_of(board: str) -> str:
    """Assign a board to train, valid or test by its content: another seed may draw the same board."""
    fraction = int.from_bytes(hashlib.sha256(board.encode()).digest()[:4], "big") / 2**32
    return next(name for name, end in SHARES if fraction < end)
