"""Precision of the frozen layers: float32, or matrix products in bfloat16.

Only products with frozen weights are rounded. The residual stream, attention, norms, LoRA layers and logits stay in
float32, so that rounding errors do not accumulate over the layers.
"""

from __future__ import annotations

import torch

from ...protocol.config import PRECISIONS

AUTO, FULL, HALF = PRECISIONS
# CPU features with which bfloat16 products run natively, faster than in float32.
FAST_ON_CPU = ("avx512_bf16", "amx_bf16")


class HalfLinear(torch.nn.Linear):
    """A frozen linear layer that multiplies in bfloat16; inputs and outputs are float32."""

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> HalfLinear:
        """Copy a layer, with its weights rounded to bfloat16."""
        half = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta", torch.bfloat16)
        half.weight = _frozen(linear.weight)
        half.bias = None if linear.bias is None else _frozen(linear.bias)
        return half

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply. Gradients flow to the input only."""
        return super().forward(input.to(torch.bfloat16)).to(input.dtype)


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto`` to the fastest precision on a device."""
    if name != AUTO:
        return name
    if device.type == "cuda":
        return HALF if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return HALF if any(capabilities.get(feature) for feature in FAST_ON_CPU) else FULL
    return FULL


def halve(module: torch.nn.Module) -> None:
    """Replace every linear layer inside of a module by its `HalfLinear`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Linear:
                setattr(parent, name, HalfLinear.of(child))


def _frozen(parameter: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
