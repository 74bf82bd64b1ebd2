"""Prompt rendering: the same situation gives the same string on both sides.

A prompt has three segments, from the most to the least shared: the *head* is the same for all games, the *scene* (goal,
place, what was read) lasts for several turns, the *moment* is this turn. Each is tokenised by itself, so that the
key-value caches of heads and scenes can be reused. Admissible commands are not listed: decoding walks their token
tree, and what the moment says about commands is only what the player remembers of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .situation import Situation

SYSTEM = "You play a text game. Reach the goal in few commands."
LONGEST_REPLY = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """The two segments that depend on the situation; the head belongs to the model's chat template."""

    scene: str
    moment: str


def render(situation: Situation) -> Prompt:
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
    ]
    moment = [f"{name}: {text}" for name, text in lines if text] or ["Tried here: nothing"]
    return Prompt("\n".join(scene) + "\n", "\n".join(moment))


def _last(situation: Situation) -> str:
    """The reply to the last command, unless it is long or stands in the scene already."""
    reply = " ".join(situation.reply.split())
    return "" if reply == " ".join(situation.note.split()) or len(reply.split()) > LONGEST_REPLY else reply


PROMPT_VERSION = hashlib.sha256(
    repr((SYSTEM, LONGEST_REPLY, "goal/place/read; carrying/tried/new/back/last; likelihoods; 2")).encode()
).hexdigest()[:16]
