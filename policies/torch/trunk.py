"""Forward passes of the decoder's layers over packed sequences, and command probabilities from the last hidden states.

The lowest layers are frozen and carry no adapter, so that their results for a text are the same for all policy
versions. They are its *bottom*, which is cached across versions; its *top*, from the first adapted layer on, belongs to
one version.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..tokens import PackedSequence, TokenizedSituation, causal
from .packed_attention import AttentionInputs, KeyValues, Layout, Positions, build_layout

Ints = NDArray[np.int64]


class Base(Protocol):
    """The part of a base model that its trunk runs."""

    @property
    def decoder(self) -> Any:
        """The module with `embed_tokens`, `layers`, `norm` and `rotary_emb`."""

    @property
    def head(self) -> torch.Tensor:
        """Weights of the LM head, shape (vocabulary, hidden)."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def kept_dtype(self) -> torch.dtype:
        """Data type of cached keys and values."""

    @property
    def first_layer(self) -> int:
        """Index of the first layer with an adapter."""


class Trunk:
    """The decoder layers and the LM head of one base model, over packed hidden states of shape (T, hidden)."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.layer_count = len(base.decoder.layers)
        self.first_adapted = base.first_layer
        # Layers say themselves whether they have a window; without one, its length does not matter.
        self.window: int | None = getattr(base.decoder.config, "sliding_window", None)
        # Some models rotate the layers with a sliding window otherwise than the others (Gemma 3).
        by_type = "layer_type" in inspect.signature(base.decoder.rotary_emb.forward).parameters
        types: list[str] | None = base.decoder.config.layer_types if by_type else None
        self._layer_types = types or [""] * self.layer_count

    def embed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Token embeddings, shape (T, hidden)."""
        ids = torch.tensor(tokens, dtype=torch.long, device=self.base.device)
        return self.base.decoder.embed_tokens(ids)  # type: ignore[no-any-return]

    def run(self, hidden_Td: torch.Tensor, start: int, stop: int, inputs: AttentionInputs) -> torch.Tensor:
        """Apply the layers ``start`` to ``stop - 1``."""
        hidden, positions = hidden_Td[None], inputs.layout.positions_T[None]
        types, rotary_emb = self._layer_types[start:stop], self.base.decoder.rotary_emb
        rotary = {name: rotary_emb(hidden, positions, *([name] if name else [])) for name in set(types)}
        for layer, name in zip(self.base.decoder.layers[start:stop], types, strict=True):
            hidden = layer(hidden, position_embeddings=rotary[name], attention_inputs=inputs)
        return hidden[0]

    def run_all(self, hidden_Td: torch.Tensor, inputs: AttentionInputs) -> torch.Tensor:
        """Apply all layers."""
        return self.run(hidden_Td, 0, self.layer_count, inputs)

    def log_probs(
        self, hidden_Td: torch.Tensor, rows: Sequence[TokenizedSituation], starts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Log-probabilities of every row's commands, from the last layer's output.

        Parameters
        ----------
        starts
            Where each row begins in `hidden_Td`.

        Returns
        -------
        list of tensors
            One of shape (A,) for each row.
        """
        nodes_per_row = [
            np.unique(row.tree.choice_node) + start + len(row.moment) for row, start in zip(rows, starts, strict=True)
        ]
        tokens = np.unique(np.concatenate([row.vocabulary for row in rows]))
        normed_Nd = self.base.decoder.norm(hidden_Td[self._tensor(np.concatenate(nodes_per_row))])
        logits_NV = (normed_Nd @ self.base.head[self._tensor(tokens)].T).float()
        logits_per_row = logits_NV.split([len(nodes) for nodes in nodes_per_row])
        return [self._commands(row, logits, tokens) for row, logits in zip(rows, logits_per_row, strict=True)]

    def _commands(self, row: TokenizedSituation, logits_NV: torch.Tensor, tokens: Ints) -> torch.Tensor:
        """Log-probabilities of one row's commands, shape (A,), from the logits of these tokens at its choice nodes."""
        tree = row.tree
        if not len(tree.choice_token):  # still differentiable, since a training batch may have no choices
            return logits_NV.sum().expand(len(tree.uses))
        row_logits_NV = logits_NV[:, self._tensor(np.searchsorted(tokens, row.vocabulary))]
        node = np.unique(tree.choice_node, return_inverse=True)[1]
        chosen_C = logits_NV[self._tensor(node), self._tensor(np.searchsorted(tokens, tree.choice_token))]
        surprise_C = row_logits_NV.logsumexp(-1)[self._tensor(node)] - chosen_C
        return torch.log_softmax(-(self._tensor(tree.uses) @ surprise_C), dim=-1)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.base.device)

    def single_sequence(self, length: int) -> AttentionInputs:
        """Return the attention inputs of one sequence without a prefix, under a causal mask."""
        sequence = PackedSequence(length, np.arange(length), np.zeros(0, dtype=np.int64), causal(length))
        return AttentionInputs(self.layout([sequence], np.zeros(0, dtype=np.int64)))

    def layout(self, sequences: Sequence[PackedSequence], cached: Positions) -> Layout:
        """Lay out packed sequences, behind keys at these positions, on the model's device."""
        return build_layout(sequences, cached, self.base.device, self.window)


def stack(key_values: dict[int, KeyValues], layers: range) -> torch.Tensor:
    """Stack keys and values of some layers in one tensor of shape (layers, 2, G, T, D)."""
    return torch.stack([torch.stack(key_values[layer]) for layer in layers])


def unstack(stacked: torch.Tensor, first: int) -> dict[int, KeyValues]:
    """Undo `stack`."""
    return {first + n: (pair[0], pair[1]) for n, pair in enumerate(stacked)}
