"""What is left of TextWorld's texts when the banner, the score lines and the flowery intro are gone."""

from __future__ import annotations

import re

from ..protocol.situation import ROOM_LINE

# The end of an episode: "*** The End ***", the score, and the question what to do next.
_ENDING = re.compile(r"\s*\*\*\* [^*\n]+ \*\*\*.*\Z", re.DOTALL)
_SCORE_LINE = re.compile(r"^\s*(Your score has just gone (up|down) by|You scored ).*$", re.MULTILINE)
# The prompt, followed by the interpreter's status bar: "> ...   -= Kitchen =-0/1".
_PROMPT = re.compile(r"^>(\s*|\s.*-=.*=-\s*-?\d+/\d+\s*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"[ \t]*\n\s*\n[ \t]*")
_SALUTE = re.compile(r"\A.*!\s+(?=\S)", re.DOTALL)
_PREAMBLE = re.compile(r"\A(Your task for today is to|Your objective is to|Please)\s+", re.IGNORECASE)
_HUNGRY = "You are hungry! "


def clean(feedback: str) -> str:
    """Return what a command answered: score, ending, prompt and excess blank lines removed."""
    text = _PROMPT.sub("", _SCORE_LINE.sub("", _ENDING.sub("", feedback)))
    return _BLANK_LINES.sub("\n", text).strip()


def opening(feedback: str) -> str:
    """Return the first room of a game: everything before its ``-= Name =-`` line is banner and objective."""
    room = ROOM_LINE.search(feedback)
    return clean(feedback[room.start() :] if room else feedback)


def goal_of(objective: str) -> str:
    """Return the task that an objective sets, e.g. ``"Recover the coin from the floor of the bedroom."``."""
    text = " ".join(objective.split())
    if text.startswith(_HUNGRY):
        return text.removeprefix(_HUNGRY)
    task = _PREAMBLE.sub("", _SALUTE.sub("", text))
    return task[:1].upper() + task[1:]
