"""The soft prompts of one base model that lie in a public random subspace."""

from __future__ import annotations

import torch

from ..spaces import PromptSpace
from ..tokens import PromptTokenizer
from .trunk import Trunk


class Subspace:
    """Maps coordinates w to the embeddings ``start + scale |start| sum_i w_i direction_i`` of a soft prompt."""

    @torch.inference_mode(False)  # the caller may be in inference mode, but gradients go through these tensors later
    @torch.no_grad()
    def __init__(self, trunk: Trunk, tokenizer: PromptTokenizer, space: PromptSpace) -> None:
        tokens = tokenizer.ids(space.start)
        repeated = [tokens[index % len(tokens)] for index in range(space.virtual_tokens)]
        self.start_nd = trunk.embed(repeated)
        length = float(self.start_nd.norm(dim=-1).mean())
        unit_Wnd = torch.from_numpy(space.directions(self.start_nd.shape[1])).to(self.start_nd)
        self.directions_Wnd = space.scale * length * unit_Wnd

    def prompts(self, weights_BW: torch.Tensor) -> torch.Tensor:
        """Embeddings of one soft prompt for each context, shape (B, n, hidden)."""
        return self.start_nd + torch.einsum("bw,wnd->bnd", weights_BW, self.directions_Wnd)
