"""Prompt rendering: a pure function of the situation, so that devices and server render the same string.

A prompt has three segments, from most to least shared: the *head* is the same for all games, the *scene* (goal, room,
note) lasts for several turns, and the *moment* describes this turn. Segments are tokenised separately, so that the
prefix cache can serve heads and scenes. By default the prompt does not list the admissible commands, because decoding
scores their token tree. A policy that decodes freely uses another `Style`: its prompt says how to answer and, by
default, lists the commands.
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
    """The variant of the prompt that fits a decoding method; the default is for scoring a tree of commands.

    Parameters
    ----------
    free
        Whether the policy decodes freely.
    thinking
        Whether the prompt of free decoding asks for reasoning before the command.
    listed
        Whether the prompt of free decoding lists the admissible commands.
    """

    free: bool = False
    thinking: bool = False
    listed: bool = True

    @property
    def system(self) -> str:
        """The system message: the text of the head."""
        return f"{SYSTEM} {THINK if self.thinking else WRITE}" if self.free else SYSTEM

    @property
    def name(self) -> str:
        """Suffix that names the style in a policy's name; empty for the tree of commands."""
        if not self.free:
            return ""
        return "free" + (" thinking" if self.thinking else "") + ("" if self.listed else " unlisted")


TREE_STYLE = Style()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The two segments that depend on the situation; the head comes from the model's chat template."""

    scene: str
    moment: str


def render(situation: Situation, style: Style = TREE_STYLE) -> Prompt:
    """Render a situation; fields that are empty are left out."""
    scene = [f"Goal: {situation.goal}", situation.place_text]
    if situation.note:
        scene.append(f"Read: {situation.note}")
    reply, note = (" ".join(text.split()) for text in (situation.reply, situation.note))
    is_news = reply != note and len(reply.split()) <= LONGEST_REPLY  # neither in the scene as the note, nor long
    lines = [
        ("Carrying", ", ".join(situation.carried)),
        ("Tried here", ", ".join(situation.done_here)),
        ("New", ", ".join(situation.fresh)),
        ("Way back", situation.back),
        ("Last", reply if is_news else ""),
        ("Commands", "; ".join(situation.admissible) if style.free and style.listed and not situation.open else ""),
    ]
    moment = [f"{name}: {text}" for name, text in lines if text] or ["Tried here: nothing"]
    return Prompt("\n".join(scene) + "\n", "\n".join(moment))


def command_of(text: str) -> str:
    """Return the command of a response: its last line that begins with ``>``, or else its last non-empty line."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    marked = [line.removeprefix(COMMAND_MARK).strip() for line in lines if line.startswith(COMMAND_MARK)]
    return next((line for line in reversed(marked or lines) if line), "")


PROMPT_VERSION = hashlib.sha256(
    repr((SYSTEM, LONGEST_REPLY, "goal/place/read; carrying/tried/new/back/last; likelihoods; 2")).encode()
).hexdigest()[:16]
