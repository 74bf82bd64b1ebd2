"""The public vocabulary of tactics: what the default codec's context weights mean.

Every command in a situation is an instance of exactly one *tactic*: a move (a command template: verb and preposition)
under three facets of how it relates to what the player saw: whether it is named, how new it is, and whether it
returns. ``take · named in the goal · not yet tried here`` is one coordinate of the context w, and the teacher plays

    pi(a | x) * exp(w[tactic(x, a)]) / Z(x)

One tactic a command keeps the coordinates apart: what is learned of eating raw food does not speak about eating the
meal, and the diagonal of the Fisher information is nearly all of it. Moves and facets hold for text games at large:
nothing here knows one family. All verbs outside of the vocabulary share one more row.
"""

from __future__ import annotations

import functools
import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation

MOVES = (
    "go", "look", "inventory", "examine", "take", "take from", "drop", "put on", "insert into", "open", "close",
    "unlock with", "eat", "drink", "cook with", "cut with", "prepare",
)  # fmt: skip
SAME_MOVE = {"chop": "cut", "slice": "cut", "dice": "cut", "read": "examine", "get": "take"}
PREPOSITIONS = ("from", "on", "into", "with")
TRIFLES = frozenset(
    """the and you your this that with from into onto for are has have then all any its not but out who was his her
    them there here room take pick place put open find get look going goes good some one two""".split()  # noqa: SIM905
)  # fmt: skip

NAMED = ("", "named in what was read", "named in the goal")
NEWNESS = ("tried here", "not yet tried here", "newly possible")
RETURNS = ("", "of what is carried, or straight back")
FACETS = len(NAMED) * len(NEWNESS) * len(RETURNS)
ROWS = len(MOVES) + 1
DIMENSION = ROWS * FACETS
VOCABULARY = hashlib.sha256(
    repr((MOVES, sorted(SAME_MOVE.items()), PREPOSITIONS, sorted(TRIFLES), NAMED, NEWNESS, RETURNS)).encode()
).hexdigest()[:16]

SPOKEN, SPOKEN_WEIGHT = 12, 0.3  # how many tactics are put into words, and how much they must weigh

Cells = NDArray[np.int64]


def cells(situation: Situation) -> Cells:
    """Find the tactic of every admissible command.

    Returns
    -------
    array
        Coordinates between 0 and `DIMENSION`, shape ``(len(situation.admissible),)``.
    """
    goal, note = words(situation.goal), words(situation.note)
    fresh, tried = frozenset(situation.fresh), frozenset(situation.done_here)
    found = np.empty(len(situation.admissible), dtype=np.int64)
    for row, command in enumerate(situation.admissible):
        objects = words(command.partition(" ")[2])
        named = 2 if objects & goal else 1 if objects & note else 0
        newness = 0 if command in tried else 2 if command in fresh else 1
        returns = command == situation.back or any(f" {item} " in f"{command} " for item in situation.carried)
        found[row] = ((move_of(command) * len(NAMED) + named) * len(NEWNESS) + newness) * len(RETURNS) + returns
    return found


def move_of(command: str) -> int:
    """Row of the command's template: the verb, with its preposition where the vocabulary knows the pair."""
    verb, *rest = command.split() or [""]
    verb = SAME_MOVE.get(verb, verb)
    for name in (*(f"{verb} {word}" for word in rest if word in PREPOSITIONS), verb):
        if name in MOVES:
            return MOVES.index(name)
    return len(MOVES)


@functools.lru_cache(maxsize=8192)  # goals, notes and commands come again turn after turn
def words(text: str) -> frozenset[str]:
    """Words that carry meaning, in lower case."""
    return frozenset(w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in TRIFLES)


def tactic_name(cell: int) -> str:
    """Say what one coordinate means."""
    rest, returns = divmod(cell, len(RETURNS))
    rest, newness = divmod(rest, len(NEWNESS))
    move, named = divmod(rest, len(NAMED))
    name = MOVES[move] if move < len(MOVES) else "other verb"
    return " · ".join(part for part in (name, NAMED[named], NEWNESS[newness], RETURNS[returns]) if part)


def advice(weights: NDArray[np.float32]) -> str:
    """Say the strongest tactics in words, for a prompt: good ones first, strongest first; empty without any."""
    strongest = sorted(np.flatnonzero(np.abs(weights) >= SPOKEN_WEIGHT), key=lambda cell: -abs(weights[cell]))
    lines = [
        f"- {word}: {tactic_name(int(cell)).replace(' · ', ', ')}"
        for word, sign in (("do", 1), ("avoid", -1))
        for cell in strongest[:SPOKEN]
        if np.sign(weights[cell]) == sign
    ]
    return "\n".join(["Advice from earlier games:", *lines, ""]) if lines else ""


def tilt(log_probs: NDArray[np.float32], situation: Situation, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of the teacher: the policy's, tilted by the weights of the tactics and normalised again."""
    scores = log_probs.astype(np.float64) + weights.astype(np.float64)[cells(situation)]
    top = scores.max()
    normalised: NDArray[np.float32] = (scores - top - np.log(np.exp(scores - top).sum())).astype(np.float32)
    return normalised
