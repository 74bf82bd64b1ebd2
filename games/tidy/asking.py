"""The same homes with open answers: one thing after the other is handed over, and the player says where it belongs.

Nothing is listed, and any text is judged: it has to name one of the places that are in sight, in or without a sentence
such as "put the kettle in the kitchen cabinet". Nothing says whether an answer was right.

The examples of answers are such sentences: where thing and place stand side by side, a small language model's hidden
states tell better whether they belong together than behind the bare name of a place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..game import Frame
from .engine import ROOMS, put_command
from .home import Home, draw_home
from .table import load_table

GOAL = "Say where each thing belongs."
HANDS = re.compile(r"In your hands: (?P<thing>[^.]+)\.")
UNKNOWN = "There is no such place here."


class AskingEngine:
    """One home, and the things that have been asked for.

    Parameters
    ----------
    settings
        Number of ``things`` and ``rooms``, and of ``places`` in each room; and the ``split`` of the things.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._things, self._rooms, self._places = (int(settings[name]) for name in ("things", "rooms", "places"))
        self._split = str(settings["split"])
        self._home: Home | None = None
        self._answers: list[str] = []

    def start(self, seed: int) -> Frame:
        """Hand over the first thing in the home of this seed."""
        self._home = draw_home(load_table(), self._things, self._rooms, self._places, self._split, seed)
        self._answers = []
        return self._frame(self._home)

    def act(self, command: str) -> Frame:
        """Put the thing where the answer says, and hand over the next."""
        home = self._started()
        place = place_named(command, self._thing(home), _places(home))
        if place:
            self._answers.append(place)
        return self._frame(home, understood=bool(place))

    def walkthrough(self) -> tuple[str, ...]:
        """Say where each thing belongs."""
        return tuple(put_command(thing, place) for thing, place in self._started().targets.items())

    def close(self) -> None:
        self._home = None

    def _started(self) -> Home:
        if self._home is None:
            raise GameError("reset the game before the first command")
        return self._home

    def _thing(self, home: Home) -> str:
        return list(home.targets)[len(self._answers)]

    def _frame(self, home: Home, *, understood: bool = True) -> Frame:
        right = [answer == place for answer, place in zip(self._answers, home.targets.values(), strict=False)]
        asks = len(self._answers) < len(home.targets)
        lines = [f"-= {ROOMS[0]} =-", f"Furniture: {', '.join(_places(home))}."]
        if asks:
            lines.append(f"In your hands: {self._thing(home)}.")
        return Frame(
            text="\n".join(lines) if understood else UNKNOWN,
            goal=GOAL,
            admissible=tuple(put_command(self._thing(home), place) for place in _places(home)) if asks else (),
            score=float(sum(right)),
            max_score=float(len(home.targets)),
            won=not asks and all(right),
            lost=False,
            open=asks,
            valid=understood,
        )


def place_named(answer: str, thing: str, places: Sequence[str]) -> str:
    """Return the place that an answer names, or an empty string.

    An answer is a place, with or without "in", "on" and "the", and "put" and the thing before it; case and punctuation
    do not matter.
    """
    words = " ".join(re.findall(r"[\w']+", answer.lower()))
    before = rf"(?:put )?(?:it |(?:the )?{re.escape(thing.lower())} )?(?:in |on |into |onto |inside )?(?:the )?"
    return next((place for place in places if re.fullmatch(before + re.escape(place.lower()), words)), "")


def next_answer(text: str, commands: Sequence[str]) -> str:
    """Return the answer of a player that knows the table; empty if nothing is in its hands."""
    asked = HANDS.search(text)
    thing = asked["thing"] if asked else ""
    right = {put_command(thing, place) for place in load_table().right_places.get(thing, ())}
    return next((command for command in commands if command in right), "")


def _places(home: Home) -> tuple[str, ...]:
    return tuple(place for room in home.places for place in room)
