"""Perplexity of a model on a text."""

from __future__ import annotations

import math

import torch

from .states import POSITIONS, TextStates


@torch.inference_mode()
def perplexity(read: TextStates, head_Vd: torch.Tensor) -> float:
    """Return the perplexity ``exp(mean_t -log p(token_t | tokens_<t))`` under a head, without the first token."""
    normed = read.states_Td[:-1]
    targets = torch.tensor(read.tokens[1:], device=normed.device)
    nll = 0.0
    for hidden_nd, target_n in zip(normed.split(POSITIONS), targets.split(POSITIONS), strict=True):
        logits_nV = (hidden_nd @ head_Vd.T).float()
        nll += float(torch.nn.functional.cross_entropy(logits_nV, target_n, reduction="sum"))
    return math.exp(nll / len(targets))
