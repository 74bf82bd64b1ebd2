"""Any game with its verbs and directions renamed: *grab* and *northward* instead of *take* and *north*.

A language model understands the synonyms; the `tactics` codec, whose cues are fixed verbs
(`fedoel.codecs.tactics.coordinates`), does not. Each word is replaced by one word, so that the objects of a command
keep their position. In replies a word is replaced only where it is used as a verb: at the beginning of a line or
sentence, and after "you"; in "an open door" it stays. `Memory` recognises some verbs too, so that a renamed game's
situations lack what is carried and what was read.
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
COMPASS: Mapping[str, str] = MappingProxyType({word: f"{word}ward" for word in ("north", "south", "east", "west")})
DIRECTIONS: Mapping[str, str] = MappingProxyType(
    {**COMPASS, **{word: f"{word}ward" for word in ("up", "down", "left", "right")}}
)
# Verbs that also begin sentences which are no commands: "Look at that!", "Put simply", "Go figure".
_AMBIGUOUS = ("go", "look", "inventory", "put")
_UNAMBIGUOUS = "|".join(verb for verb in VERBS if verb not in _AMBIGUOUS)
_VERB = re.compile(rf"(?P<before>^[ \t]*|[.!?:]\s+|\byou )(?P<word>{_UNAMBIGUOUS})\b", re.MULTILINE | re.IGNORECASE)
_DIRECTION = re.compile(rf"\b(?P<word>{'|'.join(COMPASS)})\b", re.IGNORECASE)


class RenamedEngine:
    """Wraps an engine: renames what it shows, and translates commands back before it executes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._original: dict[str, str] = {}

    def start(self, seed: int) -> Frame:
        """Start the instance of this seed."""
        return self._renamed(self._engine.start(seed))

    def act(self, command: str) -> Frame:
        """Execute an admissible command, or any text after an open frame."""
        return self._renamed(self._engine.act(self._original.get(command, command)))

    def walkthrough(self) -> tuple[str, ...] | None:
        """Return the engine's walkthrough, renamed."""
        commands = self._engine.walkthrough()
        return None if commands is None else tuple(map(rename_command, commands))

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _renamed(self, frame: Frame) -> Frame:
        self._original = {rename_command(command): command for command in frame.admissible}
        return replace(
            frame, text=rename_text(frame.text), goal=rename_text(frame.goal), admissible=tuple(self._original)
        )


def rename_command(command: str) -> str:
    """Rename the verb and the direction of a command; distinct commands stay distinct."""
    verb, space, rest = command.partition(" ")
    return f"{VERBS.get(verb, verb)}{space}{DIRECTIONS.get(rest, rest)}"


def rename_text(text: str) -> str:
    """Rename verbs and compass directions in a reply or goal."""
    return _DIRECTION.sub(
        lambda match: _replacement(match["word"], COMPASS),
        _VERB.sub(lambda match: match["before"] + _replacement(match["word"], VERBS), text),
    )


def _replacement(word: str, replacements: Mapping[str, str]) -> str:
    """Return the replacement of a word, capitalised like the word."""
    replacement = replacements[word.lower()]
    return replacement.capitalize() if word[0].isupper() else replacement
