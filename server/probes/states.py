"""The text on which versions are compared with the base model, and the hidden states that a model has on it."""

from __future__ import annotations

from pathlib import Path

import torch

from ...policies.torch.model import TorchModel
from ...protocol.versions import Adapter

TEXT = Path(__file__).parent / "general.md"
POSITIONS = 64  # positions whose logits are in memory at a time


@torch.inference_mode()
def normed_states(model: TorchModel, adapter: Adapter, text: str = "") -> tuple[list[int], torch.Tensor]:
    """Return the tokens of a text, and the normed hidden states before the head, shape ``(tokens, hidden)``.

    Parameters
    ----------
    adapter
        The adapter's weights; empty for the base model. It stays loaded.
    text
        The text; by default the one that the package ships.
    """
    model.load(adapter)
    tokens = model.tokenizer.ids(text or TEXT.read_text(encoding="utf-8"))
    trunk = model.trunk
    hidden = trunk.run(trunk.embed(tokens), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
    return list(tokens), model.base.decoder.norm(hidden)
