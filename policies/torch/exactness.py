"""Is a model computed exactly? fedoel's packed forward pass against the model's own, when a model is first loaded.

The packed forward pass runs the layers of the model itself, and does the rest: embeddings, positions, attention and its
windows, and the LM head. An architecture that does any of it otherwise, for example one that caps or scales its logits,
would be computed wrongly without a word. Therefore both passes read a text that is longer than the model's window, and
a model whose log-probabilities differ is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...protocol.errors import ModelError
from ..tokens import PackedSequence, causal
from .packed_attention import NAME, AttentionInputs, KeyValues
from .trunk import Trunk

TEXT = "You are in the kitchen. A red apple lies on the table. Take it, go north, and put it into the chest.\n"
SHORTEST, LONGEST = 64, 4096  # tokens of the text
COMPARED = 16  # last tokens of the text, whose log-probabilities depend on all others
LARGEST_DIFFERENCE = 1e-3  # of a log-probability, in float32
PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")


@dataclass(frozen=True)
class Bare:
    """A model without adapters: implements `fedoel.policies.torch.trunk.Base`."""

    model: Any

    @property
    def decoder(self) -> Any:
        """The module with `embed_tokens`, `layers`, `norm` and `rotary_emb`."""
        return self.model.model

    @property
    def head(self) -> torch.Tensor:
        """Weights of the LM head."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.head.device

    @property
    def kept_dtype(self) -> torch.dtype:
        """Data type of cached keys and values."""
        return torch.float32

    @property
    def first_layer(self) -> int:
        """There is no layer with an adapter."""
        return len(self.decoder.layers)


def check_exact(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compare both forward passes of a model in float32.

    Raises
    ------
    ModelError
        If they differ, or the packed one does not run.
    """
    name = type(model).__name__
    other = "choose a Llama-like model with rotary attention, such as Llama, SmolLM2, Qwen2, Qwen3, Mistral or Gemma 3"
    parts = getattr(model, "model", None)
    if not all(hasattr(parts, part) for part in PARTS):
        raise ModelError(f"policy.base is a {name}, which is not supported: {other}")
    try:
        trunk = Trunk(Bare(model))
        tokens = _text(tokenizer, trunk.window)
        ours = _packed(trunk, tokens)
        theirs = _own(model, tokens)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ModelError(f"policy.base is a {name}, which is not supported ({error}): {other}") from error
    difference = float((ours - theirs).abs().max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"policy.base is a {name}, whose log-probabilities would be wrong by up to {difference:.2g}: {other}"
        )


def _text(tokenizer: PreTrainedTokenizerBase, window: int | None) -> list[int]:
    """Return the tokens of a text that is longer than a window."""
    ids: list[int] = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    length = min(max(SHORTEST, (window or 0) + SHORTEST), LONGEST)
    return (ids * (1 + length // len(ids)))[:length]


@torch.inference_mode()
def _packed(trunk: Trunk, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities at the last tokens; the second half of the text is read behind the cached first half."""
    half, computed = len(tokens) // 2, dict[int, KeyValues]()
    first = trunk.single_sequence(half)
    trunk.run_all(trunk.embed(tokens[:half]), AttentionInputs(first.layout, {}, computed))
    rest = len(tokens) - half
    sequence = PackedSequence(rest, half + np.arange(rest), np.arange(half), causal(rest))
    inputs = AttentionInputs(trunk.layout([sequence], np.arange(half)), computed)
    top = trunk.run_all(trunk.embed(tokens[half:]), inputs)[-COMPARED:]
    logits: torch.Tensor = trunk.base.decoder.norm(top) @ trunk.base.head.T
    return logits.float().log_softmax(-1)


@torch.inference_mode()
def _own(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities at the last tokens by the model's own forward pass."""
    with _own_attention(model):
        ids = torch.tensor([tokens], device=model.device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=COMPARED).logits[0, -COMPARED:]
    return logits.float().log_softmax(-1)


@contextmanager
def _own_attention(model: PreTrainedModel) -> Iterator[None]:
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)
