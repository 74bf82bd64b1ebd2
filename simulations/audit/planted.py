"""Planted secrets: words that a device read or typed, and whether anything that leaves it tells them apart.

A secret stands in a game's text, in its goal and in a command. The attacker has a thousand candidates and encodes the
same trajectory with each of them; it has extracted a secret if what it sees lies nearer to that candidate than to any
other. The same attack is made on the raw text and on a plain embedding of it, where it must succeed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...codecs.tactics.encoder import TacticsEncoder
from ...protocol.play import GameSpec, Trajectory, Turn
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.situation import Situation

Floats = NDArray[np.float64]
WORDS, EMBEDDING = 1000, 384
Encode = Callable[[Trajectory], Floats]


@dataclass(frozen=True, slots=True)
class Extraction:
    """Secrets that an attack on a view told apart from all others."""

    view: str
    extracted: int
    planted: int


def candidates(count: int = WORDS) -> list[str]:
    """Words that no vocabulary knows, all different."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    digests = (hashlib.sha256(f"secret {number}".encode()).digest() for number in range(count))
    return ["".join(letters[byte % 26] for byte in digest[:10]) for digest in digests]


def planted(secret: str) -> Trajectory:
    """Return an episode in which a secret was read, named as the goal, and typed."""
    here, commands = f"A vault. The {secret} is here.", (f"open {secret}", f"examine {secret}", "look", "go east")
    situation = Situation(
        f"open the {secret}", "vault", here, "", "look", (), f"the code is {secret}", ("look",), frozenset({"look"}),
        (), "", commands, 1, 5,
    )  # fmt: skip
    uniform = np.log(np.full(4, 0.25, np.float32))
    return Trajectory(GameSpec.parse("vault turns=5"), 0, "v1", (Turn(situation, uniform, 0, 1.0),), True, False, 1.0)


def gradient_of(trajectory: Trajectory) -> Floats:
    """The device's half of the default codec."""
    encoder = TacticsEncoder()
    return encoder.gradient_and_fisher(None, trajectory.turns, np.ones(len(trajectory.turns)))[0]  # type: ignore[arg-type]


def embedding_of(trajectory: Trajectory) -> Floats:
    """A plain sentence embedding: hashed character trigrams of all text, averaged."""
    text, total = text_of(trajectory), np.zeros(EMBEDDING)
    for start in range(len(text) - 2):
        digest = hashlib.sha256(text[start : start + 3].encode()).digest()
        total += np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=EMBEDDING)
    return total / max(1, len(text))


def text_of(trajectory: Trajectory) -> str:
    """Everything that was said in an episode."""
    return " ".join(
        " ".join([turn.situation.goal, turn.situation.place_text, turn.situation.note, turn.command])
        for turn in trajectory.turns
    )


def extract(encode: Encode, noise: float, secrets: Sequence[str], seed: int) -> int:
    """How many secrets are nearest to their own code, by more than rounding, after noise of a standard deviation."""
    rng = np.random.default_rng(seed)
    codes = np.stack([encode(planted(secret)) for secret in secrets])
    found = 0
    for own, code in enumerate(codes):
        distances = np.linalg.norm(codes - (code + rng.normal(scale=noise, size=code.shape)), axis=1)
        others = np.delete(distances, own)
        found += bool(distances[own] < others.min() - 1e-9)
    return found


def extractions(plan: PrivacyPlan, seed: int, count: int = WORDS) -> list[Extraction]:
    """Attack every view of a planted secret."""
    secrets = candidates(count)
    spread = float(np.sqrt(plan.variance("gradient", plan.minimum)))
    raw = sum(secret in text_of(planted(secret)) for secret in secrets)
    return [
        Extraction("raw text", raw, count),
        Extraction("plain embedding", extract(embedding_of, 0.0, secrets, seed), count),
        Extraction("single vector", extract(gradient_of, 0.0, secrets, seed), count),
        Extraction("noisy sum", extract(gradient_of, spread, secrets, seed), count),
    ]
