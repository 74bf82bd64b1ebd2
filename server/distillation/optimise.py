"""The training loop over batches of public states: AdamW with linear decay, gradient clipping and determinism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...policies.tokens import Ids, TokenizedSituation
from ...policies.torch.model import TorchModel
from .anchor import EVERY
from .parts import Gradient, Gradients, Part, parts_of, split_like

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Number of steps, states per batch, initial learning rate, gradient clipping norm, and weight of the anchor."""

    steps: int
    batch: int
    learning_rate: float
    gradient_norm: float = 1.0
    anchor: float = 0.0


@dataclass(slots=True)
class History:
    """The loss of every step, without the anchor's, and what was recorded about it."""

    losses: list[float] = field(default_factory=list)
    recorded: list[Mapping[str, float]] = field(default_factory=list)

    def add(self, parts: Sequence[Gradient], shares: Sequence[float]) -> None:
        """Add a step: the mean over its parts, each with its share of the states."""
        self.losses.append(sum(share * part.loss for part, share in zip(parts, shares, strict=True)))
        common = set.intersection(*(set(part.recorded) for part in parts))
        names = [name for name in parts[0].recorded if name in common]
        self.recorded.append(
            {name: sum(s * part.recorded[name] for part, s in zip(parts, shares, strict=True)) for name in names}
        )

    def means(self, steps: int) -> dict[str, float]:
        """Return the mean of what was recorded over the last steps, of each name that is known in any of them."""
        last = self.recorded[-steps:]
        names = list(dict.fromkeys(name for values in last for name in values))
        return {name: float(np.mean([values[name] for values in last if name in values])) for name in names}


def optimise(
    model: TorchModel,
    rows: Sequence[TokenizedSituation],
    gradients: Gradients,
    schedule: Schedule,
    seed: int,
    advance: Advance = lambda steps: None,
) -> History:
    """Train the adapter in place.

    Parameters
    ----------
    rows
        The tokenised states from which batches are drawn.
    gradients
        Computes the gradients of a step's parts; asked for that of the anchor where the schedule gives it a weight.
    advance
        Called after every step, for progress.
    """
    weights, history = model.trained, History()
    optimiser = torch.optim.AdamW(weights, lr=schedule.learning_rate, weight_decay=0.0)
    # Linear decay to zero: at a constant rate, a few dozen steps would end on the noise of the last batches.
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / schedule.steps)
    drawn = batches(rows, schedule.batch, np.random.default_rng(seed))
    for step, batch in zip(range(schedule.steps), drawn, strict=False):
        parts = parts_of(step, batch)
        anchor = [Part(step, len(parts), ())] if schedule.anchor and step % EVERY == 0 else []
        found = gradients([*parts, *anchor])
        shares = [len(part.batch) / len(batch) for part in parts]
        total = _sum(found, [*shares, *[EVERY * schedule.anchor for _ in anchor]])
        for weight, values in zip(weights, split_like(model, total), strict=True):
            weight.grad = values
        torch.nn.utils.clip_grad_norm_(weights, schedule.gradient_norm)
        optimiser.step()
        decay.step()
        history.add(found[: len(parts)], shares)
        advance(1)
    model.changed()
    return history


def _sum(gradients: Sequence[Gradient], factors: Sequence[float]) -> NDArray[np.float32]:
    total = np.zeros_like(gradients[0].values)
    for gradient, factor in zip(gradients, factors, strict=True):
        total += np.float32(factor) * gradient.values
    return total


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
