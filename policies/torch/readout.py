"""What the head would have to read for one command rather than for the others: the contrast that steers towards it.

Every choice on a command's way prefers one token to the rest. In the hidden state h that the head reads there,

    c = sqrt(d) (I - u u^T) gamma (head[token] - E head),       u = h / |h|

is that preference, the expectation over the tokens that could follow: the gradient of the token's log-probability for a
change of h in lengths of h, behind a root-mean-square norm with weights gamma. It is known in closed form from what a
forward pass gives, so no backward pass is needed. A command's contrast is the sum over its choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..tokens import TokenizedSituation
from .trunk import Trunk


def contrasts(
    trunk: Trunk, top_Td: torch.Tensor, rows: Sequence[TokenizedSituation], starts: Sequence[int]
) -> list[torch.Tensor]:
    """Contrasts of every row's commands, from the last layer's output.

    Parameters
    ----------
    starts
        Where each row begins in `top_Td`.

    Returns
    -------
    list of tensors
        One of shape (A, d) for each row.
    """
    return [_contrasts(trunk, top_Td, row, start) for row, start in zip(rows, starts, strict=True)]


def _contrasts(trunk: Trunk, top_Td: torch.Tensor, row: TokenizedSituation, start: int) -> torch.Tensor:
    device, norm = top_Td.device, trunk.base.decoder.norm
    nodes, node_of_C = np.unique(row.tree.choice_node, return_inverse=True)
    hidden_Nd = top_Td[torch.from_numpy(nodes + start + len(row.moment)).to(device)].float()
    head_Vd = trunk.base.head[torch.from_numpy(row.vocabulary).to(device)].float()
    probs_NV = (norm(hidden_Nd).float() @ head_Vd.T).softmax(-1)
    at_C = torch.from_numpy(node_of_C).to(device)
    chosen_Cd = trunk.base.head[torch.from_numpy(row.tree.choice_token).to(device)].float()
    wished_Cd: torch.Tensor = norm.weight * (chosen_Cd - (probs_NV @ head_Vd)[at_C])
    unit_Cd = (hidden_Nd / hidden_Nd.norm(dim=-1, keepdim=True))[at_C]
    turned_Cd: torch.Tensor = wished_Cd - unit_Cd * (unit_Cd * wished_Cd).sum(-1, keepdim=True)
    uses_AC = torch.from_numpy(row.tree.uses).to(turned_Cd)
    return uses_AC @ (math.sqrt(top_Td.shape[1]) * turned_Cd)
