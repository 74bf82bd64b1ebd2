"""The table of what belongs where (things.toml): some 400 things and 40 places."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Table:
    """What belongs where.

    Parameters
    ----------
    prepositions
        For each place, the word before it in commands: ``"in"`` or ``"on"``.
    right_places
        For each thing, the places where it belongs, mostly one.
    things
        The things that belong to each place, ``things[split][place]``; the split ``"all"`` has those of every split.
    """

    prepositions: Mapping[str, str]
    right_places: Mapping[str, frozenset[str]]
    things: Mapping[str, Mapping[str, Sequence[str]]]

    @classmethod
    def parse(cls, text: str) -> Table:
        """Read a table in TOML."""
        entries = tomllib.loads(text)
        things = {split: {place: entry[split] for place, entry in entries.items()} for split in SPLITS}
        things["all"] = {place: [*e["train"], *e["valid"], *e["test"]] for place, e in entries.items()}
        right_places = defaultdict(set)
        for place, belonging in things["all"].items():
            for thing in belonging:
                right_places[thing].add(place)
        return cls(
            {place: entry["preposition"] for place, entry in entries.items()},
            {thing: frozenset(places) for thing, places in right_places.items()},
            things,
        )


@cache
def load_table() -> Table:
    """Return the table, which is read once."""
    return Table.parse((files(__package__) / "things.toml").read_text(encoding="utf-8"))
