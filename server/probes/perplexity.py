"""Perplexity of a model with an adapter on a fixed general text."""

from __future__ import annotations

import math

import torch

from ...policies.torch.model import TorchModel
from ...protocol.versions import Adapter
from .states import POSITIONS, normed_states


@torch.inference_mode()
def perplexity(model: TorchModel, adapter: Adapter, text: str = "") -> float:
    """Return the perplexity ``exp(mean_t -log p(token_t | tokens_<t))``, without the first token.

    The parameters are those of `fedoel.server.probes.states.normed_states`.
    """
    tokens, states = normed_states(model, adapter, text)
    normed = states[:-1]
    targets = torch.tensor(tokens[1:], device=normed.device)
    nll = 0.0
    for hidden_nd, target_n in zip(normed.split(POSITIONS), targets.split(POSITIONS), strict=True):
        logits_nV = (hidden_nd @ model.base.head.T).float()
        nll += float(torch.nn.functional.cross_entropy(logits_nV, target_n, reduction="sum"))
    return math.exp(nll / len(targets))
