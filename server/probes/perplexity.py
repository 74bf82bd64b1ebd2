"""Perplexity of a model with an adapter on a fixed general text."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ...policies.torch.model import TorchModel
from ...protocol.versions import Adapter

TEXT = Path(__file__).parent / "general.md"
POSITIONS = 64  # positions whose logits are in memory at a time


@torch.inference_mode()
def perplexity(model: TorchModel, adapter: Adapter, text: str = "") -> float:
    """Return the perplexity ``exp(mean_t -log p(token_t | tokens_<t))``, without the first token.

    Parameters
    ----------
    adapter
        The adapter's weights; empty for the base model.
    text
        The text; by default the one that the package ships.
    """
    model.load(adapter)
    tokens = model.tokenizer.ids(text or TEXT.read_text(encoding="utf-8"))
    trunk = model.trunk
    hidden = trunk.run(trunk.embed(tokens), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
    normed = model.base.decoder.norm(hidden)[:-1]
    targets = torch.tensor(tokens[1:], device=normed.device)
    nll = 0.0
    for hidden_nd, target_n in zip(normed.split(POSITIONS), targets.split(POSITIONS), strict=True):
        logits_nV = (hidden_nd @ model.base.head.T).float()
        nll += float(torch.nn.functional.cross_entropy(logits_nV, target_n, reduction="sum"))
    return math.exp(nll / len(targets))
