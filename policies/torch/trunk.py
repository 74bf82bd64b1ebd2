"""Running part of a decoder over packed segments, and reading command probabilities off the top.

The lowest layers carry no adapter: what they compute for a text is the same for every policy version. The *bottom* of
a segment is therefore kept across versions, its *top* is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..spans import Span, causal
from ..tokens import TokenizedSituation
from .base import Base
from .segments import Attended, KeyValues, Layout, build_layout

Ints = NDArray[np.int64]


class Trunk:
    """Layers of one base model, run over packed hidden states of shape (T, hidden)."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.layers = len(base.decoder.layers)
        self.first = base.first_layer

    def embed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Token embeddings, shape (T, hidden)."""
        ids = torch.tensor(tokens, dtype=torch.long, device=self.base.device)
        return self.base.decoder.embed_tokens(ids)  # type: ignore[no-any-return]

    def run(self, hidden_Td: torch.Tensor, start: int, stop: int, attended: Attended) -> torch.Tensor:
        """Apply layers ``start`` to ``stop``."""
        rotary = self.base.decoder.rotary_emb(hidden_Td[None], attended.layout.positions_T[None])
        hidden = hidden_Td[None]
        for layer in self.base.decoder.layers[start:stop]:
            hidden = layer(hidden, position_embeddings=rotary, attended=attended)
        return hidden[0]

    def whole(self, hidden_Td: torch.Tensor, attended: Attended) -> torch.Tensor:
        """Apply all layers."""
        return self.run(hidden_Td, 0, self.layers, attended)

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
        asked = [
            np.unique(row.tree.choice_node) + start + len(row.moment) for row, start in zip(rows, starts, strict=True)
        ]
        tokens = np.unique(np.concatenate([row.vocabulary for row in rows]))
        normed_Nd = self.base.decoder.norm(hidden_Td[self._tensor(np.concatenate(asked))])
        logits_NV = (normed_Nd @ self.base.head[self._tensor(tokens)].T).float()
        parts = logits_NV.split([len(nodes) for nodes in asked])
        return [self._commands(row, part, tokens) for row, part in zip(rows, parts, strict=True)]

    def _commands(self, row: TokenizedSituation, logits_NV: torch.Tensor, tokens: Ints) -> torch.Tensor:
        """Log-probabilities of one row's commands, shape (A,), from the logits of its nodes for these tokens."""
        tree = row.tree
        if not len(tree.choice_token):  # differentiable all the same: training may meet a batch without any choice
            return logits_NV.sum().expand(len(tree.uses))
        own_NV = logits_NV[:, self._tensor(np.searchsorted(tokens, row.vocabulary))]
        node = np.unique(tree.choice_node, return_inverse=True)[1]
        chosen_C = logits_NV[self._tensor(node), self._tensor(np.searchsorted(tokens, tree.choice_token))]
        surprise_C = own_NV.logsumexp(-1)[self._tensor(node)] - chosen_C
        return torch.log_softmax(-(self._tensor(tree.uses) @ surprise_C), dim=-1)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.base.device)

    def alone(self, length: int) -> Attended:
        """Lay out one text that sees nothing but itself, from its first token on."""
        span = Span(length, np.arange(length), np.zeros(0, dtype=np.int64), causal(length))
        return Attended(self.layout([span], 0))

    def layout(self, spans: Sequence[Span], cached_keys: int) -> Layout:
        """Lay spans out on the model's device."""
        return build_layout(spans, cached_keys, self.base.device)


def stack(made: dict[int, KeyValues], layers: range) -> torch.Tensor:
    """Keys and values of some layers in one tensor of shape (layers, 2, G, T, D)."""
    return torch.stack([torch.stack(made[layer]) for layer in layers])


def unstack(stacked: torch.Tensor, first: int) -> dict[int, KeyValues]:
    """Undo `stack`."""
    return {first + n: (pair[0], pair[1]) for n, pair in enumerate(stacked)}
