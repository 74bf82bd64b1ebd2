"""The public vocabulary of tactics: what the default codec's context weights mean.

A tactic is a *move* (a command template: verb and preposition) together with a *cue* (a relation between the command
and what the player saw). ``take · named in the goal`` is one coordinate of the context w; the teacher plays

    pi(a | x) * exp(w . phi(x, a)) / Z(x)

Moves and cues hold for text games at large: nothing here knows one family. A verb outside the vocabulary is hashed
into one of a few spare rows, so that every command has coordinates and the dimension is fixed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .situation import Situation

MOVES = (
    "go", "look", "inventory", "examine", "take", "take from", "drop", "put on", "insert into", "open", "close",
    "unlock with", "lock with", "eat", "drink", "cook with", "cut with", "prepare", "push", "use",
)  # fmt: skip
SPARE_MOVES = 4
SAME_MOVE = {"chop": "cut", "slice": "cut", "dice": "cut", "read": "examine", "x": "examine", "get": "take", "pull": "push"}
PREPOSITIONS = ("from", "on", "into", "with")
TRIFLES = frozenset(
    "the and you your this that with from into onto for are has have then all any its not but out who was his her them "
    "there here room take pick place put open find get look going goes good some one two".split()
)


@dataclass(frozen=True, slots=True)
class View:
    """What the cues look at: one command in one situation, with the words of both ready."""

    situation: Situation
    command: str
    objects: frozenset[str]
    goal: frozenset[str]
    note: frozenset[str]


Cue = Callable[[View], bool]

CUES: tuple[tuple[str, Cue], ...] = (
    ("", lambda view: True),
    ("named in the goal", lambda view: bool(view.objects & view.goal)),
    ("named in what was read", lambda view: bool(view.objects & view.note)),
    ("newly possible", lambda view: view.command in view.situation.fresh),
    ("of something carried", lambda view: any(item in view.command for item in view.situation.carried)),
    ("not yet tried here", lambda view: view.command not in view.situation.done_here),
    ("going straight back", lambda view: view.command == view.situation.back),
)
ROWS = len(MOVES) + SPARE_MOVES
DIMENSION = ROWS * len(CUES)
VOCABULARY = hashlib.sha256(
    repr((MOVES, SPARE_MOVES, sorted(SAME_MOVE.items()), sorted(TRIFLES), [name for name, _ in CUES], 1)).encode()
).hexdigest()[:16]


def features(situation: Situation) -> NDArray[np.float32]:
    """Compute phi(x, a) for every admissible command.

    Returns
    -------
    array
        Zeros and ones of shape ``(len(situation.admissible), DIMENSION)``.
    """
    goal, note = words(situation.goal), words(situation.note)
    phi = np.zeros((len(situation.admissible), DIMENSION), dtype=np.float32)
    for row, command in enumerate(situation.admissible):
        start = move_of(command) * len(CUES)
        view = View(situation, command, words(command.partition(" ")[2]), goal, note)
        for column, (_, cue) in enumerate(CUES):
            phi[row, start + column] = cue(view)
    return phi


def move_of(command: str) -> int:
    """Row of the command's template: the verb, with its preposition where the vocabulary knows the pair."""
    verb, *rest = command.split()
    verb = SAME_MOVE.get(verb, verb)
    for name in (*(f"{verb} {word}" for word in rest if word in PREPOSITIONS), verb):
        if name in MOVES:
            return MOVES.index(name)
    spare = int.from_bytes(hashlib.sha256(verb.encode()).digest()[:4], "big") % SPARE_MOVES
    return len(MOVES) + spare


def words(text: str) -> frozenset[str]:
    """Words that carry meaning, in lower case."""
    return frozenset(w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in TRIFLES)


def tactic_name(index: int) -> str:
    """What one coordinate means, in words."""
    row, column = divmod(index, len(CUES))
    move = MOVES[row] if row < len(MOVES) else f"other verb {row - len(MOVES) + 1}"
    cue = CUES[column][0]
    return f"{move} · {cue}" if cue else move


def tilt(log_probs: NDArray[np.float32], situation: Situation, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of the teacher: the policy's, tilted by w . phi and normalised again."""
    scores = log_probs.astype(np.float64) + features(situation).astype(np.float64) @ weights.astype(np.float64)
    top = scores.max()
    normalised: NDArray[np.float32] = (scores - top - np.log(np.exp(scores - top).sum())).astype(np.float32)
    return normalised
