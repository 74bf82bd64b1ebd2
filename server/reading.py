"""Public prompts that a language model reads in shares, which several processes compute.

A share starts with an empty cache, so that its results do not depend on where it is computed. What the frozen layers
make of its prompts comes back with them, since training starts from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..policies.routed import ApplyContext
from ..policies.torch.model import load_model
from ..policies.torch.policy import TorchPolicy, speaking
from ..policies.torch.prefix_cache import Kept
from ..protocol.config import RunConfig
from ..protocol.play import Turn
from ..protocol.situation import Situation
from .distillation.training_states import TrainingStates
from .learner import Adapter, Workers
from .public.turns import turns_under

PROMPTS = 32  # of a share

Read = tuple[list[Turn], Kept]
"""Turns of prompts, if they were answered, and what the frozen layers made of them."""


@dataclass(frozen=True)
class Share:
    """Prompts of a share, and the number of the first one among all."""

    situations: Sequence[Situation]
    first: int = 0


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads shares of prompts through the frozen layers, in any process."""

    config: RunConfig
    cache: Path

    def __call__(self, share: Share) -> Read:
        model = load_model(self.config.policy, self.cache)
        scenes = model.new_prefix_cache(keep_bottoms=True)
        TrainingStates.prepare(model, share.situations, scenes)
        return [], cast(Kept, scenes.kept)


@dataclass(frozen=True, eq=False)
class Answerer:
    """Answers shares of prompts as a version does under a context, in any process; what is written has a seed."""

    config: RunConfig
    cache: Path
    adapter: Adapter
    apply_context: ApplyContext
    seed: Sequence[int]

    def __call__(self, share: Share) -> Read:
        model = load_model(self.config.policy, self.cache)
        scenes = model.new_prefix_cache(keep_bottoms=True)
        policy = self.apply_context(speaking(TorchPolicy(model, self.adapter, scenes), self.config.policy))
        return turns_under(policy, share.situations, self.seed, share.first), cast(Kept, scenes.kept)


def in_shares(
    situations: Sequence[Situation],
    read: Callable[[Share], Read],
    kept: Kept,
    workers: Workers | None,
) -> list[Turn]:
    """Let all prompts be read, share by share; what the frozen layers make of them is added to what is kept."""
    shares = [Share(situations[first : first + PROMPTS], first) for first in range(0, len(situations), PROMPTS)]
    turns = list[Turn]()
    for some, more in workers.map(read, shares) if workers else map(read, shares):
        turns += some
        kept.add(more)
    return turns
