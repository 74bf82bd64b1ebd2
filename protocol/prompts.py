"""Prompt rendering: the same situation gives the same string on both sides.

A prompt has three segments, from the most to the least shared: the *head* is the same for all games, the *scene* (goal,
place, what was read) lasts for several turns, the *moment* is this turn. Each is tokenised by itself, so that the
key-value caches of heads and scenes can be reused. Admissible commands are not listed: decoding walks their token
tree, and what the moment says about commands is only what the player remembers of them. A policy that writes freely is
asked in another `Style`: it is told how to answer and, unless it is to do without, what it may say.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .situation import Situation

SYSTEM = "You play a text game. Reach the goal in few commands."
WRITE = "Answer with one command and nothing else."
THINK = "Think first. Then write the command on a line of its own that begins with >."
COMMAND_MARK = ">"
LONGEST_REPLY = 16


@dataclass(frozen=True, slots=True)
class Style:
    """How a policy is asked: by default for nothing, since its commands are walked as a tree.

    Parameters
    ----------
    free
        Whether it writes its answer freely.
    thinking
        Whether it is told to think before it answers.
    listed
        Whether a policy that writes freely is told which commands there are.
    """

    free: bool = False
    thinking: bool = False
    listed: bool = True

    @property
    def system(self) -> str:
        """What the head of the prompt says."""
        return f"{SYSTEM} {THINK if self.thinking else WRITE}" if self.free else SYSTEM

    @property
    def name(self) -> str:
        """Part of the names of policies that are asked so; empty for the tree of commands."""
        if not self.free:
            return ""
        return "free" + (" thinking" if self.thinking else "") + ("" if self.listed else " unlisted")


WALKED = Style()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The two segments that depend on the situation; the head belongs to the model's chat template."""

    scene: str
    moment: str


def render(situation: Situation, style: Style = WALKED) -> Prompt:
    """Render what the player knows, leaving out what is empty."""
    scene = [f"Goal: {situation.goal}", situation.place_text]
    if situation.note:
        scene.append(f"Read: {situation.note}")
    lines = [
        ("Carrying", ", ".join(situation.carried)),
        ("Tried here", ", ".join(situation.done_here)),
        ("New", ", ".join(situation.fresh)),
        ("Way back", situation.back),
        ("Last", _last(situation)),
        ("Commands", "; ".join(situation.admissible) if style.free and style.listed else ""),
    ]
    moment = [f"{name}: {text}" for name, text in lines if text] or ["Tried here: nothing"]
    return Prompt("\n".join(scene) + "\n", "\n".join(moment))


def command_of(text: str) -> str:
    """The command that a response ends in: its last line that begins with ``>``, or else its last line."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    marked = [line.removeprefix(COMMAND_MARK).strip() for line in lines if line.startswith(COMMAND_MARK)]
    return next((line for line in reversed(marked or lines) if line), "")


def _last(situation: Situation) -> str:
    """The reply to the last command, unless it is long or stands in the scene already."""
    reply = " ".join(situation.reply.split())
    return "" if reply == " ".join(situation.note.split()) or len(reply.split()) > LONGEST_REPLY else reply


PROMPT_VERSION = hashlib.sha256(
    repr((SYSTEM, LONGEST_REPLY, "goal/place/read; carrying/tried/new/back/last; likelihoods; 2")).encode()
).hexdigest()[:16]
