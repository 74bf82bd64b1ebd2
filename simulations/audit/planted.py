"""Planted secrets: whether words that a device read or typed can be recovered from what it sends.

A secret occurs in a game's text, in its goal and in a command. The attacker encodes the same trajectory with each of a
thousand candidate secrets. It has extracted the secret if the observation is nearer to the encoding of that candidate
than to any other. The attack is also run on the raw text and on a plain embedding of it, where it must succeed, and on
what federated averaging sends: a LoRA gradient on a device's own text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...codecs.tactics.encoder import TacticsEncoder
from ...protocol.config import PolicyConfig
from ...protocol.play import GameSpec, Trajectory, Turn
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.situation import Situation

if TYPE_CHECKING:
    from ...policies.torch.model import TorchModel

Floats = NDArray[np.float64]
WORDS, EMBEDDING = 1000, 384
UPDATE_WORDS = 100  # fewer candidates, since each takes a backward pass
Encode = Callable[[Trajectory], Floats]


@dataclass(frozen=True, slots=True)
class Extraction:
    """Number of planted secrets that an attack extracted from a view."""

    view: str
    extracted: int
    planted: int


def candidates(count: int = WORDS) -> list[str]:
    """Return distinct random words, which are in no vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    digests = (hashlib.sha256(f"secret {number}".encode()).digest() for number in range(count))
    return ["".join(letters[byte % 26] for byte in digest[:10]) for digest in digests]


def planted(secret: str) -> Trajectory:
    """Return an episode in which a secret was read in the text and in the goal, and typed in a command."""
    here, commands = f"A vault. The {secret} is here.", (f"open {secret}", f"examine {secret}", "look", "go east")
    situation = Situation(
        f"open the {secret}", "vault", here, "", "look", (), f"the code is {secret}", ("look",), frozenset({"look"}),
        (), "", commands, 1, 5,
    )  # fmt: skip
    uniform = np.log(np.full(4, 0.25, np.float32))
    return Trajectory(GameSpec.parse("vault turns=5"), 0, "v1", (Turn(situation, uniform, 0, 1.0),), True, False, 1.0)


def gradient_of(trajectory: Trajectory) -> Floats:
    """Encode an episode with the default codec, as a device does."""
    encoder = TacticsEncoder()
    return encoder.gradient_and_fisher(None, trajectory.turns, np.ones(len(trajectory.turns)))[0]  # type: ignore[arg-type]


def embedding_of(trajectory: Trajectory) -> Floats:
    """Encode an episode as a plain text embedding: the mean of hashed character trigrams."""
    text, total = text_of(trajectory), np.zeros(EMBEDDING)
    for start in range(len(text) - 2):
        digest = hashlib.sha256(text[start : start + 3].encode()).digest()
        total += np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=EMBEDDING)
    return total / max(1, len(text))


def text_of(trajectory: Trajectory) -> str:
    """Return all text of an episode."""
    return " ".join(
        " ".join([turn.situation.goal, turn.situation.place_text, turn.situation.note, turn.command])
        for turn in trajectory.turns
    )


def extract(encode: Encode, noise: float, secrets: Sequence[str], seed: int) -> int:
    """Count the secrets whose noisy encoding is strictly nearest to their own encoding.

    Parameters
    ----------
    noise
        Standard deviation of the Gaussian noise on an encoding.
    """
    rng = np.random.default_rng(seed)
    encodings = np.stack([encode(planted(secret)) for secret in secrets])
    extracted = 0
    for index, encoding in enumerate(encodings):
        observed = encoding + rng.normal(scale=noise, size=encoding.shape)
        distances = np.linalg.norm(encodings - observed, axis=1)
        others = np.delete(distances, index)
        extracted += bool(distances[index] < others.min() - 1e-9)
    return extracted


def extractions(plan: PrivacyPlan, seed: int, count: int = WORDS) -> list[Extraction]:
    """Run the attack on every view."""
    secrets = candidates(count)
    noise = float(np.sqrt(plan.variance("gradient", plan.minimum)))
    raw = sum(secret in text_of(planted(secret)) for secret in secrets)
    return [
        Extraction("raw text", raw, count),
        Extraction("plain embedding", extract(embedding_of, 0.0, secrets, seed), count),
        Extraction("single vector", extract(gradient_of, 0.0, secrets, seed), count),
        Extraction("noisy sum", extract(gradient_of, noise, secrets, seed), count),
    ]


def update_of(model: TorchModel) -> Callable[[Trajectory], Floats]:
    """Return a function that encodes an episode as a device's first LoRA update on its text (next-token loss)."""
    import torch

    trunk, decoder, head = model.trunk, model.base.decoder, model.base.head
    weights = [weight for name, weight in model.base.model.named_parameters() if "lora_B" in name][-4:]

    def update(trajectory: Trajectory) -> Floats:
        tokens = model.tokenizer.ids(text_of(trajectory))
        model.load({})
        with torch.enable_grad():
            hidden = trunk.run(trunk.embed(tokens).detach(), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
            logits = decoder.norm(hidden)[:-1] @ head.T
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:], device=logits.device))
            gradients = torch.autograd.grad(loss, weights)
        return np.concatenate([gradient.flatten().double().cpu().numpy() for gradient in gradients])

    return update


def lora_extraction(policy: PolicyConfig, cache: Path, seed: int, count: int = UPDATE_WORDS) -> Extraction:
    """Attack the update that federated averaging of LoRA weights would send."""
    from ...policies.torch.model import load_model

    extracted = extract(update_of(load_model(policy, cache)), 0.0, candidates(count), seed)
    return Extraction("FedAvg-LoRA update", extracted, count)
