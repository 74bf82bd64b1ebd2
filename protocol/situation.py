"""What a player knows at one turn: the only thing that prompts and tactic cues may look at.

A `Memory` is the player's own history of one episode. It turns observations into `Situation`s by rules that hold for
text games at large: a room is announced by a line ``-= Name =-``, what can be dropped is carried, a long reply to a
command that only informs is worth noting down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ROOM_LINE = re.compile(r"^\s*-=\s*(?P<name>.+?)\s*=-\s*$", re.MULTILINE)
_WAYS = (("north", "south"), ("east", "west"), ("up", "down"), ("left", "right"))
_ENDINGS = ("", "ward")
OPPOSITE = {f"{a}{end}": f"{b}{end}" for way in _WAYS for a, b in (way, way[::-1]) for end in _ENDINGS}
INFORMING = ("examine", "read", "look", "inventory")
NOTE_WORDS = 12


@dataclass(frozen=True, slots=True)
class Situation:
    """What the player saw and did so far, digested.

    Parameters
    ----------
    goal
        The task in words, as the game gives it.
    place, place_text
        Name and last seen description of the room that the player is in.
    reply
        What the last command answered, empty when it was the description of the place.
    last
        The last command, empty at the start.
    carried
        Things that the player can drop, in the order the game lists them.
    note
        The longest thing read so far, e.g. a recipe.
    done_here
        Commands given in this place so far, oldest first, each once.
    done
        Commands given anywhere so far.
    fresh
        Admissible commands that were not admissible one turn ago, except after moving.
    back
        The command that undoes the last move, empty if there was none.
    admissible
        The commands that the game accepts now.
    turn, max_turns
        Commands given so far, and the limit.
    """

    goal: str
    place: str
    place_text: str
    reply: str
    last: str
    carried: tuple[str, ...]
    note: str
    done_here: tuple[str, ...]
    done: frozenset[str]
    fresh: tuple[str, ...]
    back: str
    admissible: tuple[str, ...]
    turn: int
    max_turns: int


@dataclass
class Memory:
    """The player's history of one episode; `see` digests one observation into a `Situation`."""

    goal: str
    max_turns: int
    place: str = ""
    place_text: str = ""
    note: str = ""
    back: str = ""
    last: str = ""
    done_at: dict[str, list[str]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    before: tuple[str, ...] = ()

    def see(self, text: str, admissible: tuple[str, ...], turn: int) -> Situation:
        """Take in what the last command answered and what can be done now."""
        reply, moved = self._take_in(text.strip())
        fresh = () if moved or not self.before else tuple(c for c in admissible if c not in set(self.before))
        self.before = admissible
        return Situation(
            goal=self.goal,
            place=self.place,
            place_text=self.place_text,
            reply=reply,
            last=self.last,
            carried=tuple(c.removeprefix("drop ") for c in admissible if c.startswith("drop ")),
            note=self.note,
            done_here=tuple(self.done_at.get(self.place, ())),
            done=frozenset(self.done),
            fresh=fresh,
            back=self.back,
            admissible=admissible,
            turn=turn,
            max_turns=self.max_turns,
        )

    def do(self, command: str) -> None:
        """Remember that the player gave this command here."""
        here = self.done_at.setdefault(self.place, [])
        if command not in here:
            here.append(command)
        self.done.add(command)
        self.last = command

    def _take_in(self, text: str) -> tuple[str, bool]:
        """Return the reply that is not a room description, and whether the player is in another room now."""
        room = ROOM_LINE.search(text)
        if room is None:
            if self.last.startswith(INFORMING) and len(text.split()) > max(NOTE_WORDS, len(self.note.split())):
                self.note = text
            return text, False
        moved = room["name"] != self.place
        if moved:
            self.back = _reverse(self.last)
        self.place, self.place_text = room["name"], text
        return "", moved


def _reverse(command: str) -> str:
    verb, _, direction = command.rpartition(" ")
    return f"{verb} {OPPOSITE[direction]}" if direction in OPPOSITE else ""
