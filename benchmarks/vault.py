"""A second game for `benchmarks/attacks.py`: open the chest, take what the goal names, and leave boxes alone."""

from __future__ import annotations

import numpy as np

from fedoel.games.families import Family, Number
from fedoel.games.game import Frame

ROOMS = ("Hall", "Kitchen", "Cellar", "Attic", "Garden", "Study", "Porch")
GOODS = ("pearl", "crown", "scroll", "medal", "flute")
PESTS = ("wasp", "viper", "rat")


class Vault:
    """Rooms in a row; a chest in one of them, and in each of the others a box with something that bites."""

    def __init__(self, rooms: int) -> None:
        self.rooms = rooms

    def start(self, seed: int) -> Frame:
        rng = np.random.default_rng(seed)
        self.names = [str(name) for name in rng.permutation(ROOMS)[: self.rooms]]
        self.good, self.pest = str(rng.choice(GOODS)), str(rng.choice(PESTS))
        self.place, self.chest = (int(place) for place in rng.choice(self.rooms, size=2, replace=False))
        self.opened, self.taken, self.map = set[int](), "", True
        return self._frame()

    def act(self, command: str) -> Frame:
        verb, thing, *_ = command.split()
        if verb == "go":
            self.place += 1 if thing == "east" else -1
            return self._frame()
        if verb == "open":
            self.opened.add(self.place)
        self.taken, self.map = thing if verb == "take" else "", self.map and verb != "drop"
        return self._frame(f"You {command}.")

    def walkthrough(self) -> tuple[str, ...]:
        way = "go east" if self.chest > self.place else "go west"
        return (*[way] * abs(self.chest - self.place), "open chest", f"take {self.good} from chest")

    def close(self) -> None:
        self.taken = ""

    def _frame(self, reply: str = "") -> Frame:
        here, inside = ("chest", self.good) if self.place == self.chest else ("box", self.pest)
        ways = [way for way, can in (("go east", self.place < self.rooms - 1), ("go west", self.place > 0)) if can]
        handle = f"take {inside} from {here}" if self.place in self.opened else f"open {here}"
        text = reply or f"-= {self.names[self.place]} =-\nA room with a {here} in it."
        commands = (*ways, handle, f"examine {here}", *["drop map"] * self.map)
        won, lost = self.taken == self.good, self.taken == self.pest
        goal = f"Take the {self.good} from the chest."
        return Frame(text, goal, commands, float(won), 1.0, won, lost)


VAULT = Family({"rooms": Number(2, 7, default=3)}, lambda family, settings, cache: Vault(int(settings["rooms"])))
