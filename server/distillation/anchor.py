"""What keeps a model as it is outside of games: the base model's own predictions on a general text.

A few thousand states of games, all of one kind, can shift everything that the adapted layers say. The anchor adds

    weight * mean KL(base || student)

over some tokens of a passage to every step's loss. The text is not the one on which versions are measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...client.policy.torch_policy import TorchModel
from .losses import TokenLoss, chunked_divergence

TEXT = Path(__file__).parent / "anchor.md"
LENGTH = 48  # tokens of a passage, one of which is read in a step
POSITIONS = 16  # of them that are compared: a whole vocabulary each
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
        name = hashlib.sha256(repr((text, LENGTH, POSITIONS, DIVERGENCE)).encode()).hexdigest()[:16]
        tokens = model.encoder.ids(text)
        passages = [tokens[start : start + LENGTH] for start in range(0, len(tokens) - LENGTH + 1, LENGTH)] or [tokens]
        bottoms, tops, trunk = [], [], model.trunk
        for passage in passages:
            attended = trunk.alone(len(passage))
            bottom = trunk.run(trunk.embed(passage), 0, trunk.first, attended)
            bottoms.append(bottom)
            tops.append(model.base.decoder.norm(trunk.run(bottom, trunk.first, trunk.layers, attended)))
        return cls(model, name, bottoms, tops)

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Mean divergence over some tokens of a passage, differentiable in the adapter."""
        index, trunk = int(rng.integers(len(self.bottoms))), self.model.trunk
        bottom, top = self.bottoms[index], self.tops[index]
        hidden = trunk.run(bottom, trunk.first, trunk.layers, trunk.alone(len(bottom)))
        drawn = rng.choice(len(bottom), size=min(POSITIONS, len(bottom)), replace=False)
        places = torch.from_numpy(drawn).to(hidden.device)
        student = self.model.base.decoder.norm(hidden[places])
        losses, _ = chunked_divergence(student, top[places], self.model.base.head, DIVERGENCE)
        return losses.mean()
