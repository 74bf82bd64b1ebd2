"""Any game in other words: commands and replies speak of *grab* and *northward* where they spoke of *take* and *north*.

A player who reads loses nothing by it, while one who knows verbs by heart, as the public tactics do
(`fedoel.codecs.tactics.coordinates`), no longer finds them. One word stands for one word, so that what a command is
about stands where it stood. In replies a verb is replaced only where it is one: at the beginning of a line or a
sentence, and after "you"; an open door stays open. What a player's memory knows by verbs (what is carried, what was
read) is missing, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from .game import Engine, Frame

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "go": "walk", "look": "survey", "inventory": "belongings", "examine": "inspect", "take": "grab",
        "drop": "release", "put": "place", "insert": "stow", "open": "unseal", "close": "shut", "lock": "bolt",
        "unlock": "unbolt", "eat": "devour", "drink": "sip", "cook": "heat", "chop": "hack", "slice": "carve",
        "dice": "cube", "prepare": "assemble",
    }
)  # fmt: skip
COMPASS: Mapping[str, str] = MappingProxyType({way: f"{way}ward" for way in ("north", "south", "east", "west")})
DIRECTIONS: Mapping[str, str] = MappingProxyType(
    {**COMPASS, **{way: f"{way}ward" for way in ("up", "down", "left", "right")}}
)
# Words that begin sentences without being the command: "Look at that!", "Put simply", "Go figure".
_CHATTY = ("go", "look", "inventory", "put")
_SPOKEN = "|".join(verb for verb in VERBS if verb not in _CHATTY)
_VERB = re.compile(rf"(?P<before>^[ \t]*|[.!?:]\s+|\byou )(?P<word>{_SPOKEN})\b", re.MULTILINE | re.IGNORECASE)
_WAY = re.compile(rf"\b(?P<word>{'|'.join(COMPASS)})\b", re.IGNORECASE)


class RenamedEngine:
    """Plays another engine's game in other words; the other engine gets its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own: dict[str, str] = {}

    def start(self, seed: int) -> Frame:
        """Start the game of this seed."""
        return self._renamed(self._engine.start(seed))

    def act(self, command: str) -> Frame:
        """Give a command that is known to be admissible."""
        return self._renamed(self._engine.act(self._own[command]))

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return the engine's walkthrough in other words."""
        commands = self._engine.walkthrough()
        return None if commands is None else tuple(map(rename, commands))

    def close(self) -> None:
        """Release what the engine holds."""
        self._engine.close()

    def _renamed(self, frame: Frame) -> Frame:
        self._own = {rename(command): command for command in frame.admissible}
        return replace(frame, text=retell(frame.text), goal=retell(frame.goal), admissible=tuple(self._own))


def rename(command: str) -> str:
    """Say a command in other words; no two commands become the same."""
    verb, space, rest = command.partition(" ")
    return f"{VERBS.get(verb, verb)}{space}{DIRECTIONS.get(rest, rest)}"


def retell(text: str) -> str:
    """Say a reply in other words."""
    return _WAY.sub(
        lambda found: _like(found["word"], COMPASS),
        _VERB.sub(lambda found: found["before"] + _like(found["word"], VERBS), text),
    )


def _like(word: str, others: Mapping[str, str]) -> str:
    """The other word, with a capital where the first has one."""
    other = others[word.lower()]
    return other.capitalize() if word[0].isupper() else other
