"""Perplexity of a model with an adapter on a fixed text that has nothing to do with games."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ...policies.torch.model import Adapter, TorchModel

TEXT = Path(__file__).parent / "general.md"
POSITIONS = 64  # whose logits are in memory at a time


@torch.inference_mode()
def perplexity(model: TorchModel, adapter: Adapter, text: str = "") -> float:
    """Exponential of the mean surprise of each token after the first, given those before it, in nats.

    Parameters
    ----------
    adapter
        An empty one stands for the base model.
    text
        By default the one that the package ships.
    """
    model.load(adapter)
    tokens = model.tokenizer.ids(text or TEXT.read_text(encoding="utf-8"))
    trunk = model.trunk
    hidden = trunk.run(trunk.embed(tokens), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
    normed = model.base.decoder.norm(hidden)[:-1]
    targets = torch.tensor(tokens[1:], device=normed.device)
    surprise = 0.0
    for part, wanted in zip(normed.split(POSITIONS), targets.split(POSITIONS), strict=True):
        logits = (part @ model.base.head.T).float()
        surprise += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
    return math.exp(surprise / len(targets))
