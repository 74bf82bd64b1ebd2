"""The parts of a training step: their gradients can be computed in processes of their own, and add up to the step's.

The gradient of a part does not depend on where it is computed, nor on what was computed there before: the last bits of
a matrix product depend on its shape, so that every part starts with empty caches. Every batch has `PARTS` parts with
any number of processes, and a version is the same to the bit. The activations of one part are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from ...policies.torch.model import TorchModel

PARTS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a step.

    Parameters
    ----------
    step, number
        Number of the step, and of the part within it.
    batch
        Indices of the states; none for the anchor, which is a part of its own.
    """

    step: int
    number: int
    batch: tuple[int, ...]

    @property
    def name(self) -> str:
        """What the weights in training are called in this part: caches of other steps and parts do not serve it."""
        return f"step {self.step}, part {self.number}"

    def seed(self, *seeds: int) -> list[int]:
        """Return the seed of this part's random streams."""
        return [*seeds, self.step, self.number]


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss over the states of a part, differentiable in the adapter, and what is recorded about it, by name."""

    mean: torch.Tensor
    recorded: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gradient:
    """Gradient of a part's loss, shape ``(weights,)``, with the loss and what was recorded about it."""

    values: NDArray[np.float32]
    loss: float
    recorded: Mapping[str, float]


PartLoss = Callable[[Part], Loss]
Gradients = Callable[[Sequence[Part]], list[Gradient]]
"""Computes the gradients of the parts of one step, at the weights that the model has now."""


def parts_of(step: int, batch: Sequence[int]) -> list[Part]:
    """Divide a batch into parts of nearly equal size."""
    bounds = [len(batch) * number // PARTS for number in range(PARTS + 1)]
    parts = [tuple(batch[first:last]) for first, last in pairwise(bounds)]
    return [Part(step, number, part) for number, part in enumerate(parts) if part]


def gradients_here(model: TorchModel, loss: PartLoss) -> Gradients:
    """Return what computes the gradients of a loss in this process, part by part."""
    return lambda parts: [gradient(model, loss, part) for part in parts]


def gradient(model: TorchModel, loss: PartLoss, part: Part) -> Gradient:
    """Compute the gradient of a part at the weights that the model has now."""
    with _deterministic():
        found = loss(part)
        values = torch.autograd.grad(found.mean, model.trained, materialize_grads=True)
    flat = torch.cat([value.flatten() for value in values])
    return Gradient(flat.cpu().numpy(), found.mean.item(), found.recorded)


def weights_in_training(model: TorchModel) -> NDArray[np.float32]:
    """Copy the weights in training, shape ``(weights,)``."""
    with torch.no_grad():
        return torch.cat([weight.flatten() for weight in model.trained]).cpu().numpy()


def put_in_training(model: TorchModel, weights: NDArray[np.float32]) -> None:
    """Put weights in training into the model; no version's adapter is loaded then."""
    for weight, values in zip(model.trained, split_like(model, weights), strict=True):
        weight.data.copy_(values)
    model.version = ""


def split_like(model: TorchModel, flat: NDArray[np.float32]) -> list[torch.Tensor]:
    """Split one vector into tensors with the shapes of the weights in training."""
    sizes = [weight.numel() for weight in model.trained]
    pieces = torch.from_numpy(flat).split(sizes)
    return [piece.view_as(weight).to(weight) for piece, weight in zip(pieces, model.trained, strict=True)]


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms: otherwise threads accumulate the gradients of shared rows in any order.

    Without it the same inputs give another adapter, and so another version, in every run. torch warns of operations
    that have no deterministic algorithm on a device. Memory that is not yet written need not be filled.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
