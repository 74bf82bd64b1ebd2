"""The training loop over batches of public states: AdamW with linear decay, gradient clipping and determinism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ...policies.tokens import Ids, TokenizedSituation
from ...policies.torch.model import TorchModel
from .anchor import EVERY, Anchor

Advance = Callable[[int], None]
StepLoss = Callable[[int, Sequence[int]], torch.Tensor]
"""Loss of one step, from its number and the indices of the states in its batch."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Number of steps, states per batch, initial learning rate, gradient clipping norm, and weight of the anchor."""

    steps: int
    batch: int
    learning_rate: float
    gradient_norm: float = 1.0
    anchor: float = 0.0


def optimise(
    model: TorchModel,
    rows: Sequence[TokenizedSituation],
    loss: StepLoss,
    schedule: Schedule,
    seed: int,
    advance: Advance = lambda steps: None,
    anchor: Anchor | None = None,
) -> list[float]:
    """Train the adapter in place, and return the loss of every step, without the anchor's.

    Parameters
    ----------
    rows
        The tokenised states from which batches are drawn.
    advance
        Called after every step, for progress.
    """
    weights = model.trained
    optimiser = torch.optim.AdamW(weights, lr=schedule.learning_rate, weight_decay=0.0)
    # Linear decay to zero: at a constant rate, a few dozen steps would end on the noise of the last batches.
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / schedule.steps)
    drawn = batches(rows, schedule.batch, np.random.default_rng(seed))
    anchor_rng = np.random.default_rng([seed, 1])
    losses: list[float] = []
    with _deterministic():
        for step, batch in zip(range(schedule.steps), drawn, strict=False):
            mean = loss(step, batch)
            optimiser.zero_grad(set_to_none=True)
            mean.backward()
            if anchor is not None and step % EVERY == 0:
                # A second backward pass, so that only one graph is in memory at a time.
                (EVERY * schedule.anchor * anchor.loss(anchor_rng)).backward()
            torch.nn.utils.clip_grad_norm_(weights, schedule.gradient_norm)
            optimiser.step()
            decay.step()
            losses.append(mean.item())
            advance(1)
    model.changed()
    return losses


def batches(rows: Sequence[TokenizedSituation], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield batches of row indices without end; rows of one scene stay together, in a new order in every epoch."""
    by_scene: dict[Ids, list[int]] = {}
    for index, row in enumerate(rows):
        by_scene.setdefault(row.scene, []).append(index)
    groups, pending = list(by_scene.values()), list[int]()
    while True:
        for group in rng.permutation(len(groups)).tolist():
            pending += groups[group]
            while len(pending) >= size:
                yield pending[:size]
                pending = pending[size:]


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms: otherwise threads accumulate the gradients of shared rows in any order.

    Without it the same inputs give another adapter, and so another version, in every run. torch warns of operations
    that have no deterministic algorithm on a device.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
