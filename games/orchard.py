"""Two orchards that look the same and differ in one rule: whether the fruit that the sign names wins or loses.

Trees stand in a row, each with a different fruit, and a sign names one of the fruits. In ``orchard``, eating that fruit
wins and eating any other loses; in ``mirror-orchard`` it is the reverse. The player is not told the rule. Only the
name of the land at the beginning of the goal distinguishes the two, so that a policy that ignores it and learns one
rule fails in the other orchard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.errors import GameError
from .game import Frame

FRUITS = ("apple", "cherry", "damson", "mulberry", "pear", "plum", "quince")
LANDS = {"orchard": "Northfield", "mirror-orchard": "Southfield"}
STEPS = {"go east": 1, "go west": -1}


class OrchardEngine:
    """One row of trees and one player, who starts at the first tree."""

    def __init__(self, family: str, trees: int) -> None:
        self._land, self._named_wins, self._trees = LANDS[family], family == "orchard", trees
        self._fruits: tuple[str, ...] = ()
        self._named, self._position, self._eaten = 0, 0, ""  # indices into the row, and the fruit eaten

    def start(self, seed: int) -> Frame:
        """Start with the row of trees of this seed."""
        rng = np.random.default_rng(seed)
        self._fruits = tuple(FRUITS[index] for index in rng.permutation(len(FRUITS))[: self._trees])
        self._named, self._position, self._eaten = int(rng.integers(self._trees)), 0, ""
        return self._frame()

    def act(self, command: str) -> Frame:
        """Walk to the next tree, or eat the fruit of this one."""
        self._position += STEPS.get(command, 0)
        if command not in STEPS:
            self._eaten = self._fruits[self._position]
        return self._frame()

    def walkthrough(self) -> tuple[str, ...]:
        """Walk to the first fruit in the row that wins, and eat it."""
        if not self._fruits:
            raise GameError("reset the game before asking for its walkthrough")
        winning = next(index for index in range(self._trees) if (index == self._named) == self._named_wins)
        move = "go east" if winning > self._position else "go west"
        return (*[move] * abs(winning - self._position), f"eat {self._fruits[winning]}")

    def close(self) -> None:
        self._fruits = ()

    def _frame(self) -> Frame:
        named, here = self._fruits[self._named], self._fruits[self._position]
        won = bool(self._eaten) and (self._eaten == named) == self._named_wins
        moves = [move for move, step in STEPS.items() if 0 <= self._position + step < self._trees]
        text = f"-= Tree {self._position + 1} =-\nA tree with a ripe-looking {here}."
        goal = f"{self._land}: eat one ripe fruit. The sign says {named}."
        return Frame(text, goal, (*moves, f"eat {here}"), float(won), 1.0, won, bool(self._eaten) and not won)


def next_command(goal: str, admissible: Sequence[str]) -> str:
    """Return the next command of a player that knows the rules of both orchards."""
    named, fruit = goal.rstrip(".").split()[-1], admissible[-1].removeprefix("eat ")
    wins = (named == fruit) == goal.startswith(LANDS["orchard"])
    return admissible[-1] if wins else admissible[0]  # walk east: the player has passed no winning fruit
