"""What a player knows in one turn: the only input of prompts and of the tactic cues.

A `Memory` holds the player's history of one episode. It turns observations into `Situation`s by conventions that text
games share: a line ``-= Name =-`` begins the description of a room, objects that can be dropped are carried, and a long
reply to a command that only gives information is kept as a note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ROOM_LINE = re.compile(r"^\s*-=\s*(?P<name>.+?)\s*=-\s*$", re.MULTILINE)
_AXES = (("north", "south"), ("east", "west"), ("up", "down"), ("left", "right"))
_ENDINGS = ("", "ward")
OPPOSITE = {f"{a}{end}": f"{b}{end}" for axis in _AXES for a, b in (axis, axis[::-1]) for end in _ENDINGS}
INFORMING = ("examine", "read", "look", "inventory")
NOTE_WORDS = 12


@dataclass(frozen=True, slots=True)
class Situation:
    """Summary of what the player has seen and done so far.

    Parameters
    ----------
    goal
        The task in words, as the game states it.
    place, place_text
        Name and latest description of the current room.
    reply
        Reply to the last command; empty if it was a room description.
    last
        The last command, empty at the start.
    carried
        Objects that the player can drop, in the game's order.
    note
        The longest informative reply so far, e.g. a recipe.
    done_here
        Distinct commands given in this room so far, oldest first.
    done
        Commands given in any room so far.
    fresh
        Admissible commands that were not admissible one turn ago; empty after a change of room.
    back
        The command that reverses the last change of room; empty if there is none.
    admissible
        The commands that the game accepts in this turn.
    turn, max_turns
        Number of commands given so far, and the turn limit.
    open
        Whether any text may be answered. The admissible commands are then examples of answers that the game
        understands: they are scored where a policy chooses among commands, and prompts do not show them.
    alternatives
        Distinct answers that a policy has sampled in this situation; empty if it chose among the admissible commands.
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
    open: bool = False
    alternatives: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers that log-probabilities and features are about: alternatives, or else admissible commands."""
        return self.alternatives or self.admissible


@dataclass
class Memory:
    """The player's history of one episode. Call `see` with every observation and `do` with every command."""

    goal: str
    max_turns: int
    place: str = ""
    place_text: str = ""
    note: str = ""
    back: str = ""
    last: str = ""
    done_at: dict[str, list[str]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    last_admissible: tuple[str, ...] = ()

    def see(self, text: str, admissible: tuple[str, ...], turn: int, *, open_answer: bool = False) -> Situation:
        """Update the history with an observation and return the new situation."""
        reply, moved = self._update(text.strip())
        before, self.last_admissible = self.last_admissible, admissible
        fresh = () if moved or not before else tuple(command for command in admissible if command not in before)
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
            open=open_answer,
        )

    def do(self, command: str) -> None:
        """Record that the player gave this command in the current room."""
        here = self.done_at.setdefault(self.place, [])
        if command not in here:
            here.append(command)
        self.done.add(command)
        self.last = command

    def _update(self, text: str) -> tuple[str, bool]:
        """Update room and note; return the reply (empty for a room description) and whether the room changed."""
        room = ROOM_LINE.search(text)
        if room is None:
            if self.last.startswith(INFORMING) and len(text.split()) > max(NOTE_WORDS, len(self.note.split())):
                self.note = text
            return text, False
        moved = room["name"] != self.place
        if moved:
            verb, _, direction = self.last.rpartition(" ")
            self.back = f"{verb} {OPPOSITE[direction]}" if direction in OPPOSITE else ""
        self.place, self.place_text = room["name"], text
        return "", moved
