"""A game family in 40 lines: find the object that the goal names, in a row of rooms, and take no other.

fedoel simulate --set 'games.families="examples.errand:ERRAND rooms=3 turns=8"' --set policy.backend=tactics
"""

import numpy as np

from fedoel.games.families import Family, Number
from fedoel.games.game import Frame

ROOMS = ("Hall", "Kitchen", "Cellar", "Attic", "Garden", "Study", "Porch")
THINGS = ("lamp", "coin", "book", "cup", "rope", "bell", "comb", "drum")


class Errand:
    """The engine; `act` is called with admissible commands only."""

    def __init__(self, rooms: int) -> None:
        self.rooms = rooms

    def start(self, seed: int) -> Frame:
        rng = np.random.default_rng(seed)
        self.names, self.things = rng.permutation(ROOMS)[: self.rooms], rng.permutation(THINGS)[: self.rooms]
        self.room, self.goal = (int(index) for index in rng.choice(self.rooms, size=2, replace=False))
        self.taken, self.map, self.reply = "", True, ""
        return self._frame()

    def act(self, command: str) -> Frame:
        verb, thing = command.split()
        self.reply = "You see nothing special." if verb == "examine" else "Done."
        self.room += {"go east": 1, "go west": -1}.get(command, 0)
        self.taken, self.map = thing if verb == "take" else "", self.map and verb != "drop"
        return self._frame(self.reply if verb in ("examine", "drop") else "")

    def walkthrough(self) -> tuple[str, ...]:
        move = "go east" if self.goal > self.room else "go west"
        return (*[move] * abs(self.goal - self.room), f"take {self.things[self.goal]}")

    def close(self) -> None:
        self.taken = ""

    def _frame(self, reply: str = "") -> Frame:
        thing, wanted = str(self.things[self.room]), str(self.things[self.goal])
        exits = [move for move, free in (("go east", self.room < self.rooms - 1), ("go west", self.room > 0)) if free]
        text = reply or f"-= {self.names[self.room]} =-\nA room with a {thing} in it."
        commands = (*exits, f"take {thing}", f"examine {thing}", *["drop map"] * self.map)
        won = self.taken == wanted
        return Frame(text, f"Take the {wanted}.", commands, float(won), 1.0, won, bool(self.taken) and not won)


ERRAND = Family({"rooms": Number(2, 7, default=3)}, lambda family, settings, cache: Errand(int(settings["rooms"])))
