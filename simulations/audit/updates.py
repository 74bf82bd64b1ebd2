"""The attack on planted secrets, applied to what federated averaging sends: a LoRA gradient on a device's own text."""

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
WORDS = 100  # fewer candidates, since each takes a backward pass


def update_of(model: TorchModel) -> Callable[[Trajectory], Floats]:
    """Return a function that encodes an episode as a device's first LoRA update on its text (next-token loss)."""
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
        return np.concatenate([gradient.flatten().double().cpu().numpy() for gradient in gradients])

    return update


def lora_extraction(policy: PolicyConfig, cache: Path, seed: int, count: int = WORDS) -> Extraction:
    """Attack the update that federated averaging of LoRA weights would send."""
    from ...policies.torch.model import load_model

    extracted = extract(update_of(load_model(policy, cache)), 0.0, candidates(count), seed)
    return Extraction("FedAvg-LoRA update", extracted, count)
