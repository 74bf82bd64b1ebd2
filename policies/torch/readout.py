"""Gradients of command scores with respect to the last hidden states, in closed form, without a backward pass.

A command's score s(a) sums the log-probabilities of its choices in the command tree (`fedoel.protocol.actions`). With h
the hidden state behind the last layer at a choice, followed by a root-mean-square norm with weights gamma and by the LM
head, the gradient of log p(token | h) for a change of h in units of |h| is

    c = sqrt(d) (I - u u^T) gamma (head[token] - E head),       u = h / |h|

with the expectation over the tokens that could follow. The gradient of s(a) for one vector that is added at every
choice is the sum of c over a's choices. As a steering direction it contrasts a command with the alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..tokens import TokenizedSituation
from .trunk import Trunk


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
