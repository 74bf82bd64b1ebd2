"""Clean TextWorld's texts: remove banner, score lines, interpreter prompts and the rhetoric around the objective."""

from __future__ import annotations

import re

from ...protocol.situation import ROOM_LINE

# The end of an episode: "*** The End ***", the score, and a question what to do next.
_ENDING = re.compile(r"\s*\*\*\* [^*\n]+ \*\*\*.*\Z", re.DOTALL)
_SCORE_LINE = re.compile(r"^\s*(Your score has just gone (up|down) by|You scored ).*$", re.MULTILINE)
# The input prompt, followed by the interpreter's status bar: "> ...   -= Kitchen =-0/1".
_PROMPT = re.compile(r"^>(\s*|\s.*-=.*=-\s*-?\d+/\d+\s*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"[ \t]*\n\s*\n[ \t]*")
_GREETING = re.compile(r"\A.*!\s+(?=\S)", re.DOTALL)
_PREAMBLE = re.compile(r"\A(Your task for today is to|Your objective is to|Please)\s+", re.IGNORECASE)
_HUNGRY = "You are hungry! "


def clean(feedback: str) -> str:
    """Return the reply to a command without score lines, ending, prompt and repeated blank lines."""
    text = _PROMPT.sub("", _SCORE_LINE.sub("", _ENDING.sub("", feedback)))
    return _BLANK_LINES.sub("\n", text).strip()


def first_room(feedback: str) -> str:
    """Return the description of the first room: drop everything before its ``-= Name =-`` line."""
    room = ROOM_LINE.search(feedback)
    return clean(feedback[room.start() :] if room else feedback)


def goal_of(objective: str) -> str:
    """Return the task that an objective states, e.g. ``"Recover the coin from the floor of the bedroom."``."""
    text = " ".join(objective.split())
    if text.startswith(_HUNGRY):
        return text.removeprefix(_HUNGRY)
    task = _PREAMBLE.sub("", _GREETING.sub("", text))
    return task[:1].upper() + task[1:]
