"""What keeps a model as it is outside of games: the base model's own predictions on a general text.

A few thousand states of games, all of one kind, can shift everything that the adapted layers say. The anchor adds

    weight * mean KL(base || student)

over the tokens of some passages to every step's loss. The text is not the one on which versions are measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...client.policy.segments import Attended, Span, causal
from ...client.policy.torch_policy import TorchModel
from .losses import TokenLoss, chunked_divergence

TEXT = Path(__file__).parent / "anchor.md"
LENGTH = 48  # tokens of a passage
PASSAGES = 1  # in a step
DIVERGENCE = TokenLoss("forward-kl", top_k=0)


@dataclass(frozen=True)
class Anchor:
    """Passages of a text: hidden states below the adapted layers, and what the base model has before its head.

    `name` stands for the text and how it is used. `bottoms` and `tops` have shape (t, hidden), one each for a passage
    of t tokens.
    """

    model: TorchModel
    name: str
    bottoms: Sequence[torch.Tensor]
    tops: Sequence[torch.Tensor]

    @classmethod
    @torch.no_grad()
    def prepare(cls, model: TorchModel, text: str = "") -> Anchor:
        """Run a text through the base model; by default the one that the package ships. Leaves the base loaded."""
        model.load({})
        text = text or TEXT.read_text(encoding="utf-8")
        name = hashlib.sha256(repr((text, LENGTH, PASSAGES, DIVERGENCE)).encode()).hexdigest()[:16]
        tokens = model.encoder.ids(text)
        passages = [tokens[start : start + LENGTH] for start in range(0, len(tokens) - LENGTH + 1, LENGTH)] or [tokens]
        bottoms, tops, trunk = [], [], model.trunk
        for passage in passages:
            attended = _alone(model, [len(passage)])
            bottom = trunk.run(trunk.embed(passage), 0, trunk.first, attended)
            bottoms.append(bottom)
            tops.append(model.base.decoder.norm(trunk.run(bottom, trunk.first, trunk.layers, attended)))
        return cls(model, name, bottoms, tops)

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Mean divergence over the tokens of some passages, differentiable in the adapter."""
        chosen = rng.choice(len(self.bottoms), size=min(PASSAGES, len(self.bottoms)), replace=False)
        trunk, bottoms = self.model.trunk, [self.bottoms[index] for index in chosen]
        attended = _alone(self.model, [len(bottom) for bottom in bottoms])
        hidden = trunk.run(torch.cat(bottoms), trunk.first, trunk.layers, attended)
        tops = torch.cat([self.tops[index] for index in chosen])
        losses, _ = chunked_divergence(self.model.base.decoder.norm(hidden), tops, self.model.base.head, DIVERGENCE)
        return losses.mean()


def _alone(model: TorchModel, lengths: Sequence[int]) -> Attended:
    """Lay out passages that see nothing but themselves."""
    none = np.zeros(0, dtype=np.int64)
    return Attended(
        model.trunk.layout([Span(length, np.arange(length), none, causal(length)) for length in lengths], 0)
    )
