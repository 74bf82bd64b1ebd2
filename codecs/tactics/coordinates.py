"""The public vocabulary of tactics: the coordinates of the default codec's context.

Every command in a situation belongs to exactly one *tactic*: a move (a command template: verb and preposition) and
three facets of how the command relates to what the player has seen: whether its objects are named, how new it is, and
whether it goes back. ``take · named in the goal · not yet tried here`` is one coordinate of the context w. The teacher:

    pi(a | x) * exp(w[tactic(x, a)]) / Z(x)

With one tactic per command the coordinates do not interact: what is learned about eating raw food leaves eating the
meal unchanged, and the Fisher matrix is nearly diagonal. Moves and facets apply to text games in general and to no
family in particular. All verbs outside of the vocabulary share one more row.
"""

from __future__ import annotations

import functools
import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..log_linear import tilted

MOVES = (
    "go", "look", "inventory", "examine", "take", "take from", "drop", "put on", "insert into", "open", "close",
    "unlock with", "eat", "drink", "cook with", "cut with", "prepare",
)  # fmt: skip
SAME_MOVE = {"chop": "cut", "slice": "cut", "dice": "cut", "read": "examine", "get": "take"}
PREPOSITIONS = ("from", "on", "into", "with")
STOP_WORDS = frozenset(
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
    repr((MOVES, sorted(SAME_MOVE.items()), PREPOSITIONS, sorted(STOP_WORDS), NAMED, NEWNESS, RETURNS)).encode()
).hexdigest()[:16]

MAX_ADVICE, MIN_ADVICE_WEIGHT = 12, 0.3  # most tactics in an advice text, and their smallest absolute weight

Cells = NDArray[np.int64]


def cells(situation: Situation) -> Cells:
    """Return the tactic of every admissible command.

    Returns
    -------
    array
        Coordinates between 0 and `DIMENSION`, shape ``(len(situation.admissible),)``.
    """
    goal, note = words(situation.goal), words(situation.note)
    fresh, tried = frozenset(situation.fresh), frozenset(situation.done_here)
    tactics = np.empty(len(situation.admissible), dtype=np.int64)
    for index, command in enumerate(situation.admissible):
        objects = words(command.partition(" ")[2])
        named = 2 if objects & goal else 1 if objects & note else 0
        newness = 0 if command in tried else 2 if command in fresh else 1
        returns = command == situation.back or any(f" {item} " in f"{command} " for item in situation.carried)
        tactics[index] = ((move_of(command) * len(NAMED) + named) * len(NEWNESS) + newness) * len(RETURNS) + returns
    return tactics


def move_of(command: str) -> int:
    """Index of the command's move: its verb, with the preposition if the vocabulary has the pair."""
    verb, *rest = command.split() or [""]
    verb = SAME_MOVE.get(verb, verb)
    for name in (*(f"{verb} {word}" for word in rest if word in PREPOSITIONS), verb):
        if name in MOVES:
            return MOVES.index(name)
    return len(MOVES)


@functools.lru_cache(maxsize=8192)  # goals, notes and commands recur from turn to turn
def words(text: str) -> frozenset[str]:
    """Content words of a text, in lower case: three letters or more, without stop words."""
    return frozenset(w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in STOP_WORDS)


def tactic_name(cell: int) -> str:
    """Return the name of one coordinate."""
    rest, returns = divmod(cell, len(RETURNS))
    rest, newness = divmod(rest, len(NEWNESS))
    move, named = divmod(rest, len(NAMED))
    name = MOVES[move] if move < len(MOVES) else "other verb"
    return " · ".join(part for part in (name, NAMED[named], NEWNESS[newness], RETURNS[returns]) if part)


def advice(weights: NDArray[np.float32]) -> str:
    """Return the strongest tactics as text for a prompt, those to do before those to avoid; empty without any."""
    strongest = sorted(np.flatnonzero(np.abs(weights) >= MIN_ADVICE_WEIGHT), key=lambda cell: -abs(weights[cell]))
    lines = [
        f"- {word}: {tactic_name(int(cell)).replace(' · ', ', ')}"
        for word, sign in (("do", 1), ("avoid", -1))
        for cell in strongest[:MAX_ADVICE]
        if np.sign(weights[cell]) == sign
    ]
    return "\n".join(["Advice from earlier games:", *lines, ""]) if lines else ""


def tilt(log_probs: NDArray[np.float32], situation: Situation, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of the teacher: the policy's scores plus the weights of the tactics, normalised, shape (A,)."""
    return tilted(log_probs, weights[cells(situation)])
