"""The dynamics: walk between rooms, carry one thing at a time, put it somewhere. Nothing says whether that was right.

Everything in a room is always seen: there is no command to look. The score is the number of things that lie where they
belong. It rises and falls as things are put and taken again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..game import Frame
from .home import Home, draw_home
from .table import load_table

GOAL = "Put everything where it belongs."
ROOMS = ("Front Room", "Back Room", "Side Room")
STEPS = {"go east": 1, "go west": -1}
FLOOR = "floor"


class TidyEngine:
    """One home, the room that the player is in, and the thing in the player's hands.

    Parameters
    ----------
    settings
        Number of ``things`` and ``rooms``, and of ``places`` in each room; the ``split`` of the things; and ``final``:
        with 1, what was put somewhere stays there, and the episode ends when everything was.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._things, self._rooms, self._places = (int(settings[name]) for name in ("things", "rooms", "places"))
        self._split, self._final = str(settings["split"]), bool(settings["final"])
        self._home: Home | None = None
        self._room, self._carried = 0, ""
        self._lying: dict[str, tuple[int, str]] = {}  # room, and place or floor, of everything that is not carried

    def start(self, seed: int) -> Frame:
        """Start in the home of this seed."""
        home = draw_home(load_table(), self._things, self._rooms, self._places, self._split, seed)
        self._home, self._room, self._carried = home, home.start, ""
        self._lying = {thing: (room, FLOOR) for thing, room in home.floors.items()}
        return self._frame(home)

    def act(self, command: str) -> Frame:
        """Walk to the next room, take a thing, or put the carried thing in or on a place of this room."""
        home = self._started()
        verb, _, rest = command.partition(" ")
        if verb == "go":
            self._room += STEPS[command]
        elif verb == "take":
            self._carried = rest.partition(" from ")[0]
            del self._lying[self._carried]
        elif verb == "put":
            place = next(place for place in home.places[self._room] if put_command(self._carried, place) == command)
            self._lying[self._carried], self._carried = (self._room, place), ""
        return self._frame(home)

    def walkthrough(self) -> tuple[str, ...]:
        """Carry one thing after the other to its place."""
        home = self._started()
        commands, room = list[str](), home.start
        for thing, place in home.targets.items():
            floor, target = home.floors[thing], home.room_of(place)
            commands += [*_walk(room, floor), f"take {thing}", *_walk(floor, target), put_command(thing, place)]
            room = target
        return tuple(commands)

    def close(self) -> None:
        self._home = None

    def _started(self) -> Home:
        if self._home is None:
            raise GameError("reset the game before the first command")
        return self._home

    def _frame(self, home: Home) -> Frame:
        right = [self._lying.get(thing) == (home.room_of(place), place) for thing, place in home.targets.items()]
        doors = [move for move, step in STEPS.items() if 0 <= self._room + step < len(home.places)]
        contents = {
            place: [thing for thing, spot in self._lying.items() if spot == (self._room, place)]
            for place in (FLOOR, *home.places[self._room])
        }
        commands = (*doors, *self._take_or_put(contents))
        if self._final and not self._carried and all(place != FLOOR for _, place in self._lying.values()):
            commands = ()
        text = self._describe(contents, doors)
        return Frame(text, GOAL, commands, float(sum(right)), float(len(right)), all(right), lost=False)

    def _take_or_put(self, contents: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the commands that put the carried thing somewhere, or else those that take a thing."""
        floor, *places = contents
        if self._carried:
            return [put_command(self._carried, place) for place in places]
        takes = [f"take {thing}" for thing in contents[floor]]
        return takes if self._final else takes + [f"take {thing} from {p}" for p in places for thing in contents[p]]

    def _describe(self, contents: Mapping[str, Sequence[str]], doors: Sequence[str]) -> str:
        floor, *places = contents
        lines = [f"-= {ROOMS[self._room]} =-", f"Furniture: {', '.join(places)}."]
        for place, things in contents.items():
            if things:
                preposition = "on" if place == floor else load_table().prepositions[place]
                lines.append(f"{preposition.capitalize()} the {place}: {', '.join(things)}.")
        if self._carried:
            lines.append(f"In your hands: {self._carried}.")
        if doors:
            lines.append(f"Doors: {', '.join(move.removeprefix('go ') for move in doors)}.")
        return "\n".join(lines)


def put_command(thing: str, place: str) -> str:
    """Return the command that puts a thing in or on a place."""
    return f"put {thing} {load_table().prepositions[place]} {place}"


def next_command(admissible: Sequence[str]) -> str:
    """Return the next command of a player that knows the table; empty if this room needs none."""
    table = load_table().right_places
    right = {put_command(thing, place) for thing, places in table.items() for place in places}
    for command in admissible:
        thing, _, place = command.removeprefix("take ").partition(" from ")
        if command in right or (thing in table and place not in table[thing]):
            return command
    return ""


def _walk(start: int, end: int) -> list[str]:
    return ["go east" if end > start else "go west"] * abs(end - start)
