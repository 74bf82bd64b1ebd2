"""The anchor: a KL penalty that keeps the student close to the base model on general text.

Training on a few thousand states of similar games shifts everything that the adapted layers compute. The anchor adds

    weight * (mean KL(base || student) on a passage of text + mean KL(base || student) on an answer)

to the loss of every step. The answers are the base model's own, to general requests: a model that still predicts text
well can have lost the ability to follow instructions. Text and requests differ from those on which versions are
measured.

The anchor costs about as much as the loss itself. It is therefore computed in every `EVERY`-th step only, and weighs
that many times more there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ...policies.torch.free import tell
from ...policies.torch.model import TorchModel
from ...protocol.host.files import write_whole
from .losses import TokenLoss, chunked_divergence
from .parts import Loss, Part, PartLoss

TEXT = Path(__file__).parent / "anchor.md"
REQUESTS = Path(__file__).parent / "requests.md"
ANSWERS = Path(__file__).parent / "answers"  # of models that are used often, so that nobody waits for them
LENGTH = 48  # tokens of a passage; one passage is used in each step
ANSWER = 24  # most tokens of an answer; one answer is used in each step
EVERY = 2  # steps
BATCH = 16  # requests that are answered side by side: more of them need gigabytes for keys and values
POSITIONS = 16  # positions of a passage, and of an answer, at which the whole vocabulary is compared
DIVERGENCE = TokenLoss("forward-kl", top_k=0)


@dataclass(frozen=True, slots=True)
class Passage:
    """What the base model computes of a text, of which the last `c` of `t` tokens can be compared.

    `bottom` holds hidden states below the adapted layers, shape ``(t, hidden)``, and `top` the normed hidden states
    before the head, shape ``(c, hidden)``.
    """

    bottom: torch.Tensor
    top: torch.Tensor


@dataclass(frozen=True)
class Anchor:
    """Passages of text and answers to requests; `name` is a hash of both and of how they are used."""

    model: TorchModel
    name: str
    groups: Sequence[Sequence[Passage]]

    @classmethod
    @torch.no_grad()
    def prepare(
        cls, model: TorchModel, text: str = "", requests: Sequence[str] = (), cache: Path | None = None
    ) -> Anchor:
        """Run a text through the base model, and let the base model answer requests.

        By default these are the text and the requests that the package ships. Leaves the base model loaded.

        Parameters
        ----------
        cache
            Folder in which answers are kept that the package does not ship; None keeps none.
        """
        model.load({})
        text = text or TEXT.read_text(encoding="utf-8")
        requests = requests or REQUESTS.read_text(encoding="utf-8").splitlines()
        settings = repr((text, list(requests), LENGTH, ANSWER, POSITIONS, DIVERGENCE, EVERY))
        tokens = model.tokenizer.ids(text)
        parts = [tokens[start : start + LENGTH] for start in range(0, len(tokens) - LENGTH + 1, LENGTH)] or [tokens]
        passages = [_passage(model, part, 0) for part in parts]
        name = hashlib.sha256(settings.encode()).hexdigest()[:16]
        return cls(model, name, (passages, _answers(model, requests, name, cache)))

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Return the sum of the mean KL on a random passage and on a random answer, differentiable in the adapter."""
        divergences = [self._divergence(group[int(rng.integers(len(group)))], rng) for group in self.groups]
        return torch.stack(divergences).sum()

    def _divergence(self, passage: Passage, rng: np.random.Generator) -> torch.Tensor:
        trunk, length, compared = self.model.trunk, len(passage.bottom), len(passage.top)
        hidden = trunk.run(passage.bottom, trunk.first_adapted, trunk.layer_count, trunk.single_sequence(length))
        drawn = rng.choice(compared, size=min(POSITIONS, compared), replace=False)
        positions = torch.from_numpy(drawn).to(hidden.device)
        student = self.model.base.decoder.norm(hidden[positions + length - compared])
        losses, _ = chunked_divergence(student, passage.top[positions], self.model.base.head, DIVERGENCE)
        return losses.mean()


def anchored(loss: PartLoss, anchor: Anchor | None, seed: int) -> PartLoss:
    """Return the loss of every part, that of the anchor included, whose passages a seed determines."""

    def of(part: Part) -> Loss:
        if part.batch:
            return loss(part)
        return Loss(cast(Anchor, anchor).loss(np.random.default_rng(part.seed(seed, 1))))

    return of


def _answers(model: TorchModel, requests: Sequence[str], name: str, cache: Path | None) -> list[Passage]:
    """Requests with the base model's answers; only the answers are compared."""
    tokenizer = model.tokenizer
    file = f"{model.name.split()[0][:16]}-{name}.json"
    folders = [ANSWERS, cache] if cache else [ANSWERS]
    answers = next(filter(None, (_kept(folder / file, len(requests)) for folder in folders)), None)
    if answers is None:
        answers = _written(model, requests)
        if cache:
            write_whole(cache / file, json.dumps(answers).encode())
    prompts = [tokenizer.chat_prompt(request) for request in requests]
    return [
        _passage(model, (*prompt, *tokenizer.ids(answer)), len(prompt) - 1)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _written(model: TorchModel, requests: Sequence[str]) -> list[str]:
    """Let the base model answer."""
    asked = list(zip(requests, np.random.default_rng(0).spawn(len(requests)), strict=True))
    return [text for n in range(0, len(asked), BATCH) for text in tell(model, asked[n : n + BATCH], ANSWER)]


def _kept(path: Path, count: int) -> list[str] | None:
    """Read answers that were kept; None if there are none, or the file is damaged."""
    with suppress(OSError, ValueError):
        answers = json.loads(path.read_bytes())
        if isinstance(answers, list) and len(answers) == count and all(isinstance(text, str) for text in answers):
            return answers
    return None


def _passage(model: TorchModel, tokens: Sequence[int], start: int) -> Passage:
    """Run tokens through the base model; those from `start` on can be compared."""
    trunk = model.trunk
    attended = trunk.single_sequence(len(tokens))
    bottom = trunk.run(trunk.embed(tokens), 0, trunk.first_adapted, attended)
    top = model.base.decoder.norm(trunk.run(bottom, trunk.first_adapted, trunk.layer_count, attended))
    return Passage(bottom, top[start:])
