"""A torch policy with control vectors, and the directions that steer it towards each command.

Vectors are added to the residual stream of the moment and of the commands, not of the scenes, so that cached scenes
serve all contexts. The steering direction of a command is its score gradient behind the last layer. It is exact for a
vector that is added there; for one added some layers below, it is what the residual stream carries up.

A command's score s(a) sums the log-probabilities of its choices in the command tree (`fedoel.protocol.actions`). With h
the hidden state behind the last layer at a choice, followed by a root-mean-square norm with weights gamma and by the LM
head, the gradient of log p(token | h) for a change of h in units of |h| has a closed form, without a backward pass:

    c = sqrt(d) (I - u u^T) gamma (head[token] - E head),       u = h / |h|

with the expectation over the tokens that could follow. The gradient of s(a) for one vector that is added at every
choice is the sum of c over a's choices. As a steering direction it contrasts a command with the alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..spaces import ControlVector
from ..tokens import TokenizedSituation
from .model import TorchModel
from .packed_attention import AttentionInputs
from .packed_decoder import ContextPolicy, Load, PackedDecoder
from .prefix_cache import PrefixCache
from .trunk import Trunk


class SteeredPolicy(ContextPolicy):
    """One policy version with control vectors; zeros change nothing.

    Parameters
    ----------
    context
        Coordinates of the control vectors.
    """

    def __init__(
        self, model: TorchModel, load: Load, version: str, prefix_cache: PrefixCache, context: ControlVector
    ) -> None:
        super().__init__(model, load, version, prefix_cache)
        self._space, self._layers = context.space, context.space.layers(model.trunk.layer_count)
        self._weights = np.array(context.weights).reshape(len(self._layers), -1)

    @contextmanager
    def open_decoder(self, rows: Sequence[TokenizedSituation]) -> Iterator[PackedDecoder]:
        """Open a decoder over rows with the control vectors added."""
        with self._lock:
            prefixes = self._prefixes(rows)
            yield PackedDecoder(self.model.trunk, self._forward, len(self.model.tokenizer.head), rows, prefixes)

    def _forward(self, hidden: torch.Tensor, inputs: AttentionInputs) -> torch.Tensor:
        """Apply all layers, and add the vectors in between, in units of each hidden state's norm."""
        trunk, below = self.model.trunk, 0
        for layer, weights, directions_Wd in zip(self._layers, self._weights, self._directions_KWd, strict=True):
            if not weights.any():
                continue
            hidden = trunk.run(hidden, below, layer, inputs)
            vector = torch.from_numpy(weights).to(hidden) @ directions_Wd.to(hidden)
            hidden, below = hidden + hidden.norm(dim=-1, keepdim=True) * vector, layer
        return trunk.run(hidden, below, trunk.layer_count, inputs)

    @torch.inference_mode()
    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Score gradients of each situation's commands, in every layer's subspace, shape (A, dimension) each."""
        model, features = self.model, list[NDArray[np.float32]]()
        with self._lock:
            for rows in model.chunks(model.tokenizer.encode(situations)):
                prefixes = self._prefixes(rows)
                sequences, starts = model.pack(rows, prefixes)
                inputs = AttentionInputs(model.trunk.layout(sequences, prefixes.positions), prefixes.key_values)
                top = self._forward(model.trunk.embed([token for row in rows for token in row.tokens]), inputs)
                directions_Wd = self._directions_KWd.flatten(0, 1).to(top.device)
                gradients = score_gradients(model.trunk, top, rows, starts)
                features += [(gradients_Ad @ directions_Wd.T).cpu().numpy() for gradients_Ad in gradients]
        return features

    @cached_property
    def _directions_KWd(self) -> torch.Tensor:
        return torch.from_numpy(self._space.directions(self.model.base.head.shape[1]))


def score_gradients(
    trunk: Trunk, top_Td: torch.Tensor, rows: Sequence[TokenizedSituation], starts: Sequence[int]
) -> list[torch.Tensor]:
    """Gradients of the scores of every row's commands, from the last layer's output.

    Parameters
    ----------
    starts
        Where each row begins in `top_Td`.

    Returns
    -------
    list of tensors
        One of shape (A, d) for each row.
    """
    return [_score_gradients(trunk, top_Td, row, start) for row, start in zip(rows, starts, strict=True)]


def _score_gradients(trunk: Trunk, top_Td: torch.Tensor, row: TokenizedSituation, start: int) -> torch.Tensor:
    device, norm = top_Td.device, trunk.base.decoder.norm
    nodes, node_of_C = np.unique(row.tree.choice_node, return_inverse=True)
    hidden_Nd = top_Td[torch.from_numpy(nodes + start + len(row.moment)).to(device)].float()
    head_Vd = trunk.base.head[torch.from_numpy(row.vocabulary).to(device)].float()
    probs_NV = (norm(hidden_Nd).float() @ head_Vd.T).softmax(-1)
    at_C = torch.from_numpy(node_of_C).to(device)
    chosen_Cd = trunk.base.head[torch.from_numpy(row.tree.choice_token).to(device)].float()
    logit_gradient_Cd: torch.Tensor = norm.weight * (chosen_Cd - (probs_NV @ head_Vd)[at_C])
    unit_Cd = (hidden_Nd / hidden_Nd.norm(dim=-1, keepdim=True))[at_C]
    gradient_Cd: torch.Tensor = logit_gradient_Cd - unit_Cd * (unit_Cd * logit_gradient_Cd).sum(-1, keepdim=True)
    uses_AC = torch.from_numpy(row.tree.uses).to(gradient_Cd)
    return uses_AC @ (math.sqrt(top_Td.shape[1]) * gradient_Cd)
