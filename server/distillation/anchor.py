"""What keeps a model as it is outside of games: the base model's own predictions on a text and on answers of its own.

A few thousand states of games, all of one kind, can shift everything that the adapted layers say. The anchor adds

    weight * mean KL(base || student)

over some tokens of a passage to every step's loss, and the same over some tokens of what the base model answers to a
request: a model that still reads can have forgotten how to do as it is told. Neither text nor requests are those on
which versions are measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...policies.torch.free import tell
from ...policies.torch.model import TorchModel
from .losses import TokenLoss, chunked_divergence

TEXT = Path(__file__).parent / "anchor.md"
REQUESTS = Path(__file__).parent / "requests.md"
LENGTH = 48  # tokens of a passage, one of which is read in a step
ANSWER = 24  # tokens of an answer at most, one of which is read in a step
POSITIONS = 16  # of either that are compared: a whole vocabulary each
DIVERGENCE = TokenLoss("forward-kl", top_k=0)


@dataclass(frozen=True, slots=True)
class Passage:
    """Hidden states below the adapted layers, shape (t, hidden), and what the base model has before its head.

    `top` has shape (c, hidden): of the last `c` of the `t` tokens, which are the ones that are compared.
    """

    bottom: torch.Tensor
    top: torch.Tensor


@dataclass(frozen=True)
class Anchor:
    """Passages of a text, and answers to requests. `name` stands for both and for how they are used."""

    model: TorchModel
    name: str
    kinds: Sequence[Sequence[Passage]]

    @classmethod
    @torch.no_grad()
    def prepare(cls, model: TorchModel, text: str = "", requests: Sequence[str] = ()) -> Anchor:
        """Run a text through the base model, and let it answer requests; by default those that the package ships.

        Leaves the base model loaded.
        """
        model.load({})
        text = text or TEXT.read_text(encoding="utf-8")
        requests = requests or REQUESTS.read_text(encoding="utf-8").splitlines()
        used = repr((text, list(requests), LENGTH, ANSWER, POSITIONS, DIVERGENCE))
        tokens = model.tokenizer.ids(text)
        parts = [tokens[start : start + LENGTH] for start in range(0, len(tokens) - LENGTH + 1, LENGTH)] or [tokens]
        passages = [_read(model, part, 0) for part in parts]
        return cls(model, hashlib.sha256(used.encode()).hexdigest()[:16], (passages, _answered(model, requests)))

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Mean divergence over some tokens of a passage and over some of an answer, differentiable in the adapter."""
        drawn = [self._divergence(kind[int(rng.integers(len(kind)))], rng) for kind in self.kinds]
        return torch.stack(drawn).sum()

    def _divergence(self, passage: Passage, rng: np.random.Generator) -> torch.Tensor:
        trunk, length, compared = self.model.trunk, len(passage.bottom), len(passage.top)
        hidden = trunk.run(passage.bottom, trunk.first_adapted, trunk.layer_count, trunk.single_sequence(length))
        drawn = rng.choice(compared, size=min(POSITIONS, compared), replace=False)
        places = torch.from_numpy(drawn).to(hidden.device)
        student = self.model.base.decoder.norm(hidden[places + length - compared])
        losses, _ = chunked_divergence(student, passage.top[places], self.model.base.head, DIVERGENCE)
        return losses.mean()


def _answered(model: TorchModel, requests: Sequence[str]) -> list[Passage]:
    """Requests behind which the model's own answers stand; where it answers is compared."""
    tokenizer = model.tokenizer
    streams = np.random.default_rng(0).spawn(len(requests))
    answers = tell(model, list(zip(requests, streams, strict=True)), ANSWER)
    asked = [tokenizer.chat_prompt(request) for request in requests]
    return [
        _read(model, (*prompt, *tokenizer.ids(answer)), len(prompt) - 1)
        for prompt, answer in zip(asked, answers, strict=True)
    ]


def _read(model: TorchModel, tokens: Sequence[int], start: int) -> Passage:
    """Run tokens through the base model, and keep what is compared from `start` on."""
    trunk = model.trunk
    attended = trunk.single_sequence(len(tokens))
    bottom = trunk.run(trunk.embed(tokens), 0, trunk.first_adapted, attended)
    top = model.base.decoder.norm(trunk.run(bottom, trunk.first_adapted, trunk.layer_count, attended))
    return Passage(bottom, top[start:])
