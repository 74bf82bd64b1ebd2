"""The text on which versions are compared with the base model, and the hidden states that a model has on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...policies.torch.model import TorchModel
from ...protocol.versions import Adapter

TEXT = Path(__file__).parent / "general.md"
LONGEST = 1024  # tokens that are read; the text has more only for a tokenizer that knows few words
POSITIONS = 64  # positions whose logits are in memory at a time


@dataclass(frozen=True, slots=True)
class TextStates:
    """The tokens of a text, and a model's normed hidden states before the head, shape ``(tokens, hidden)``."""

    tokens: Sequence[int]
    states_Td: torch.Tensor


@torch.inference_mode()
def read_text(model: TorchModel, adapter: Adapter, text: str = "") -> TextStates:
    """Run a text through a model.

    Parameters
    ----------
    adapter
        The adapter's weights; empty for the base model. It stays loaded.
    text
        The text; by default the one that the package ships.
    """
    model.load(adapter)
    tokens = model.tokenizer.ids(text or TEXT.read_text(encoding="utf-8"))[:LONGEST]
    trunk = model.trunk
    hidden = trunk.run(trunk.embed(tokens), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
    return TextStates(tokens, model.base.decoder.norm(hidden))
