"""Public states prepared for training: what the frozen layers compute of them is cached and reused in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch

from ...policies.tokens import TokenizedSituation
from ...policies.torch.model import TorchModel
from ...policies.torch.prefix_cache import Kept, PrefixCache
from ...protocol.situation import Situation


@dataclass(frozen=True)
class TrainingStates:
    """Public states to train on; `bottoms` is what the frozen layers compute of them and of nothing else."""

    model: TorchModel
    situations: Sequence[Situation]
    bottoms: Kept

    @cached_property
    def rows(self) -> list[TokenizedSituation]:
        """The tokenised states."""
        return self.model.tokenizer.encode(self.situations)

    @classmethod
    @torch.no_grad()
    def prepare(
        cls, model: TorchModel, situations: Sequence[Situation], scenes: PrefixCache | None = None
    ) -> TrainingStates:
        """Tokenise the states, and run those that are not cached through the layers below the adapter.

        Parameters
        ----------
        scenes
            The cache with which the states were played, made with `keep_bottoms`; by default a new one.
        """
        scenes = scenes or model.new_prefix_cache(keep_bottoms=True)
        kept, rows = cast(Kept, scenes.kept), model.tokenizer.encode(situations)
        for chunk in model.chunks([row for row in rows if row.key not in kept.rows]):
            scenes.prepare([row.scene for row in chunk], version=None)
            hidden, _, _ = model.run_frozen_layers(chunk, scenes, tops=False)
            scenes.keep(chunk, hidden.split([len(row.tokens) for row in chunk]))
        used = dict.fromkeys([model.tokenizer.head, *(row.scene for row in rows)])
        segments = {segment: kept.segments[segment] for segment in used}
        return cls(model, situations, Kept({row.key: kept.rows[row.key] for row in rows}, segments))

    def log_probs(self, batch: Sequence[int]) -> list[torch.Tensor]:
        """Log-probabilities of each state's admissible commands, differentiable in the adapter.

        The gradient flows through the tokens of the current turn and of the commands. The keys and values of the
        prompt's head and scenes are computed once for all states that share them, and are treated as constants, because
        they are most of the tokens.

        Parameters
        ----------
        batch
            Indices of states.

        Returns
        -------
        list of Tensor
            One of shape ``(commands,)`` per state.
        """
        rows, scenes = [self.rows[index] for index in batch], self.model.new_prefix_cache()
        used = [self.model.tokenizer.head, *(row.scene for row in rows)]
        scenes.put({segment: self.bottoms.segments[segment] for segment in used})
        scenes.prepare(used[1:], "in training")
        return self.model.run_adapted_layers(rows, [self.bottoms.rows[row.key] for row in rows], scenes)
