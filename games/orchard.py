"""Two orchards that look the same and differ in one rule: whether the fruit on the sign is the ripe one.

Trees stand in a row, each with a fruit of its own, and a sign at the gate names one of them. In ``orchard`` that fruit
wins, and every other loses; in ``mirror-orchard`` it is the other way round. The rule is not told: only the name of the
land, which stands before the goal, tells the two apart. What is learned in one is wrong in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .game import Frame

FRUITS = ("apple", "cherry", "damson", "mulberry", "pear", "plum", "quince")
LANDS = {"orchard": "Northfield", "mirror-orchard": "Southfield"}
WAYS = {"go east": 1, "go west": -1}


class OrchardEngine:
    """One row of trees and one player, who starts at the first."""

    def __init__(self, family: str, trees: int) -> None:
        self._land, self._true, self._trees = LANDS[family], family == "orchard", trees
        self._fruits: tuple[str, ...] = ()
        self._sign, self._place, self._eaten = 0, 0, ""

    def start(self, seed: int) -> Frame:
        """Plant the row of this seed."""
        rng = np.random.default_rng(seed)
        self._fruits = tuple(FRUITS[place] for place in rng.permutation(len(FRUITS))[: self._trees])
        self._sign, self._place, self._eaten = int(rng.integers(self._trees)), 0, ""
        return self._frame()

    def act(self, command: str) -> Frame:
        """Walk along the row, or eat what grows here."""
        self._place += WAYS.get(command, 0)
        if command not in WAYS:
            self._eaten = self._here
        return self._frame()

    def walkthrough(self) -> tuple[str, ...]:
        """Walk to the nearest fruit that wins, and eat it."""
        if not self._fruits:
            raise GameError("reset the game before asking for its walkthrough")
        good = next(place for place in range(self._trees) if (place == self._sign) == self._true)
        way = "go east" if good > self._place else "go west"
        return (*[way] * abs(good - self._place), f"eat {self._fruits[good]}")

    def close(self) -> None:
        self._fruits = ()

    @property
    def _here(self) -> str:
        return self._fruits[self._place]

    def _frame(self) -> Frame:
        named = self._fruits[self._sign]
        won = bool(self._eaten) and (self._eaten == named) == self._true
        ways = [way for way, step in WAYS.items() if 0 <= self._place + step < self._trees]
        text = f"-= Tree {self._place + 1} =-\nA tree with a ripe-looking {self._here}."
        goal = f"{self._land}: eat one ripe fruit. The sign says {named}."
        return Frame(text, goal, (*ways, f"eat {self._here}"), float(won), 1.0, won, bool(self._eaten) and not won)


def pick_fruit(goal: str, admissible: Sequence[str]) -> str:
    """Return the next command of who knows both rules."""
    named, fruit = goal.rstrip(".").split()[-1], admissible[-1].removeprefix("eat ")
    good = (named == fruit) == goal.startswith(LANDS["orchard"])
    return admissible[-1] if good else admissible[0]  # eastward first; no row has its fruit behind


def make_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> OrchardEngine:
    """Build the engine; nothing is compiled or cached."""
    return OrchardEngine(family, int(settings["trees"]))
