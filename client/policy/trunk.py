"""Running part of a decoder over packed segments, and reading command probabilities off the top.

The lowest layers carry no adapter: what they compute for a text is the same for every policy version. The *bottom* of
a segment is therefore kept across versions, its *top* is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .base import Base
from .segments import Attended, KeyValues, Layout, build_layout
from .tokens import Row


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

    def log_probs(self, hidden_Td: torch.Tensor, rows: Sequence[Row], starts: Sequence[int]) -> list[torch.Tensor]:
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
        offsets = np.concatenate([row.choice_offsets + start for row, start in zip(rows, starts, strict=True)])
        tokens = np.concatenate([row.tree.choice_token for row in rows])
        if not len(tokens):
            zero = hidden_Td[:0].sum()  # differentiable, so that training may meet a batch without any choice
            return [zero.expand(len(row.tree.uses)) for row in rows]
        normed_Cd = self.base.decoder.norm(hidden_Td[torch.from_numpy(offsets).to(hidden_Td.device)])
        rows_Cd = self.base.head[torch.from_numpy(tokens).to(hidden_Td.device)]
        chosen_C = _log_softmax_by_group((normed_Cd * rows_Cd).sum(-1).float(), offsets)
        parts = torch.split(chosen_C, [len(row.tree.choice_token) for row in rows])
        return [
            torch.from_numpy(row.tree.uses).to(hidden_Td.device) @ part for row, part in zip(rows, parts, strict=True)
        ]

    def layout(self, spans: Sequence[object], cached_keys: int) -> Layout:
        """Lay spans out on the model's device."""
        return build_layout(spans, cached_keys, self.base.device)  # type: ignore[arg-type]


def _log_softmax_by_group(logits_C: torch.Tensor, groups: np.ndarray) -> torch.Tensor:
    """Log-softmax within runs of equal `groups`: one run is the choices at one branching node."""
    edges = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    sizes = np.diff(edges, append=len(groups))
    column = np.arange(len(groups)) - np.repeat(edges, sizes)
    row = np.repeat(np.arange(len(edges)), sizes)
    padded = logits_C.new_full((len(edges), int(sizes.max())), float("-inf"))
    index = (torch.from_numpy(row).to(logits_C.device), torch.from_numpy(column).to(logits_C.device))
    return torch.log_softmax(padded.index_put(index, logits_C), dim=-1)[index]


def stack(made: dict[int, KeyValues], layers: range) -> torch.Tensor:
    """Keys and values of some layers in one tensor of shape (layers, 2, G, T, D)."""
    return torch.stack([torch.stack(made[layer]) for layer in layers])


def unstack(stacked: torch.Tensor, first: int) -> dict[int, KeyValues]:
    """Undo `stack`."""
    return {first + n: (pair[0], pair[1]) for n, pair in enumerate(stacked)}
