"""What federated averaging would send: the gradient of LoRA weights on a device's own text. Attacked as vectors are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import PolicyConfig
from ...protocol.play import Trajectory
from .planted import Extraction, candidates, extract, text_of

if TYPE_CHECKING:
    from ...policies.torch.model import TorchModel

Floats = NDArray[np.float64]
WORDS = 100  # each costs a backward pass


def update_of(model: TorchModel) -> Callable[[Trajectory], Floats]:
    """Return what encodes an episode as the first LoRA update of a device: next-token loss on everything it read."""
    import torch

    trunk, decoder, head = model.trunk, model.base.decoder, model.base.head
    weights = [weight for name, weight in model.base.model.named_parameters() if "lora_B" in name][-4:]

    def update(trajectory: Trajectory) -> Floats:
        tokens = model.tokenizer.ids(text_of(trajectory))
        model.load({})
        with torch.enable_grad():
            hidden = trunk.run(trunk.embed(tokens).detach(), 0, trunk.layer_count, trunk.single_sequence(len(tokens)))
            logits = decoder.norm(hidden)[:-1] @ head.T
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:], device=logits.device))
            gradients = torch.autograd.grad(loss, weights)
        return np.concatenate([each.flatten().double().cpu().numpy() for each in gradients])

    return update


def lora_extraction(policy: PolicyConfig, cache: Path, seed: int, count: int = WORDS) -> Extraction:
    """Attack the update that federated averaging of LoRA weights would send."""
    from ...policies.torch.model import load_model

    found = extract(update_of(load_model(policy, cache)), 0.0, candidates(count), seed)
    return Extraction("FedAvg-LoRA update", found, count)
