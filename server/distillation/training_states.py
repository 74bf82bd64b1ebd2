"""Public states prepared for training: what the frozen layers compute of them is cached and reused in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...policies.tokens import TokenizedSituation
from ...policies.torch.model import TorchModel
from ...policies.torch.prefix_cache import PrefixCache
from ...protocol.situation import Situation


@dataclass(frozen=True)
class TrainingStates:
    """Public states to train on, tokenised.

    `bottoms` are the states' hidden states below the first adapted layer, shapes ``(t, hidden)``.
    """

    model: TorchModel
    situations: Sequence[Situation]
    scenes: PrefixCache
    rows: Sequence[TokenizedSituation]
    bottoms: Sequence[torch.Tensor]

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
        cached = scenes.kept_bottoms = scenes.kept_bottoms or {}
        rows = model.tokenizer.encode(situations)
        for chunk in model.chunks([row for row in rows if row.key not in cached]):
            scenes.prepare([row.scene for row in chunk], version=None)
            hidden, _, _ = model.run_frozen_layers(chunk, scenes, tops=False)
            scenes.keep(chunk, hidden.split([len(row.tokens) for row in chunk]))
        return cls(model, situations, scenes, rows, [cached[row.key] for row in rows])

    def log_probs(self, batch: Sequence[int], version: str) -> list[torch.Tensor]:
        """Log-probabilities of each state's admissible commands, differentiable in the adapter.

        The gradient flows through the tokens of the current turn and of the commands. The keys and values of the
        prompt's head and scenes are computed once per version for all states that share them, and are treated as
        constants, because they are most of the tokens.

        Parameters
        ----------
        batch
            Indices of states.
        version
            Name of the adapter's current weights; scenes are recomputed when it changes.

        Returns
        -------
        list of Tensor
            One of shape ``(commands,)`` per state.
        """
        rows = [self.rows[index] for index in batch]
        self.scenes.prepare([row.scene for row in rows], version)
        return self.model.run_adapted_layers(rows, [self.bottoms[index] for index in batch], self.scenes)
