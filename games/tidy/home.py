"""One instance of the game: which places stand in which room, which things lie about, and where the player starts.

Wrong places must be as frequent as right ones: otherwise a player learns which places are often right, and knows
nothing about things. So the places come first, drawn without regard to the things; then each thing's right place is one
of them with equal probability; then the thing is one that belongs there and to no other of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .table import Table

MOST_IN_A_PLACE = 2  # each split of the table has at least so many things that belong to one place only


@dataclass(frozen=True, slots=True)
class Home:
    """One instance.

    Parameters
    ----------
    places
        Names of the places in each room. Rooms stand in a row, from west to east.
    floors
        For each thing, the index of the room on whose floor it lies at the start.
    targets
        For each thing, the place where it belongs: exactly one of the home's places.
    start
        Index of the room where the player starts.
    """

    places: tuple[tuple[str, ...], ...]
    floors: Mapping[str, int]
    targets: Mapping[str, str]
    start: int

    def room_of(self, place: str) -> int:
        """Return the index of the room in which a place is."""
        return next(room for room, places in enumerate(self.places) if place in places)


def draw_home(table: Table, things: int, rooms: int, places: int, split: str, seed: int) -> Home:
    """Draw an instance.

    Parameters
    ----------
    table
        What belongs where.
    things, rooms, places
        Number of things, number of rooms, and number of places in each room.
    split
        Split of the table that the things are from, or ``"all"``.
    seed
        Seed of the draw, of which the instance is a pure function.
    """
    rng = np.random.default_rng(seed)
    offered = [str(place) for place in rng.choice(list(table.prepositions), size=rooms * places, replace=False)]
    targets: dict[str, str] = {}
    for place in _draw_targets(offered, things, rng):
        candidates = [
            thing
            for thing in table.things[split][place]
            if thing not in targets and not table.right_places[thing] & (set(offered) - {place})
        ]
        targets[candidates[int(rng.integers(len(candidates)))]] = place
    return Home(
        places=tuple(tuple(offered[room * places : (room + 1) * places]) for room in range(rooms)),
        floors={thing: int(rng.integers(rooms)) for thing in targets},
        targets=targets,
        start=int(rng.integers(rooms)),
    )


def _draw_targets(offered: list[str], things: int, rng: Generator) -> list[str]:
    """Draw a place for each thing independently; draw all again if one place gets more than a split has things for."""
    while True:
        targets = [offered[index] for index in rng.integers(len(offered), size=things)]
        if max(Counter(targets).values()) <= MOST_IN_A_PLACE:
            return targets
