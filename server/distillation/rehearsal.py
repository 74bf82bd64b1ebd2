"""Rehearsal states, prepared for training: what the frozen layers make of them is computed once and reused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...policies.tokens import Ids, TokenizedSituation
from ...policies.torch.model import TorchModel
from ...policies.torch.packed_attention import AttentionInputs
from ...policies.torch.prefix_cache import PrefixCache
from ...protocol.situation import Situation


@dataclass(frozen=True)
class Rehearsal:
    """Public states to train on. `bottoms` are hidden states below the first adapted layer, shapes (t, hidden)."""

    model: TorchModel
    scenes: PrefixCache
    rows: Sequence[TokenizedSituation]
    bottoms: Sequence[torch.Tensor]

    @classmethod
    @torch.no_grad()
    def prepare(
        cls, model: TorchModel, situations: Sequence[Situation], scenes: PrefixCache | None = None
    ) -> Rehearsal:
        """Tokenise the states and run them through the layers without adapters, unless play has just done so.

        Parameters
        ----------
        scenes
            The prefix cache with which the states were played, made to keep bottoms.
        """
        scenes = scenes or model.new_prefix_cache(keep_bottoms=True)
        known = scenes.kept_bottoms = scenes.kept_bottoms or {}
        rows = model.tokenizer.encode(situations)
        for chunk in model.chunks([row for row in rows if row.key not in known]):
            scenes.prepare([row.scene for row in chunk], version=None)
            model.run_frozen_layers(chunk, scenes, tops=False)
        return cls(model, scenes, rows, [known[row.key] for row in rows])

    def log_probs(self, chosen: Sequence[int], version: str) -> list[torch.Tensor]:
        """Log-probabilities of the chosen states' commands, differentiable in the adapter.

        The gradient flows through what is decided, the moment and the commands. Head and scenes are read with the
        adapter as it is, once for all states that share them, and taken for constants: most tokens are theirs.

        Parameters
        ----------
        version
            Name of the adapter as it is now; scenes are read again when it changes.
        """
        rows = [self.rows[index] for index in chosen]
        trunk, scenes = self.model.trunk, [row.scene for row in rows]
        self.scenes.prepare(scenes, version)
        prefixes = self.scenes.pack(scenes, bottoms=False)
        sequences, starts = self.model.pack(rows, prefixes)
        hidden = torch.cat([self.bottoms[index] for index in chosen])
        inputs = AttentionInputs(trunk.layout(sequences, prefixes.length), prefixes.key_values)
        top = trunk.run(hidden, trunk.first_adapted, trunk.layer_count, inputs)
        return trunk.log_probs(top, rows, starts)


def batches(rows: Sequence[TokenizedSituation], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Endless batches of row indices; rows that share a scene stay together, in a new order every epoch."""
    groups: dict[Ids, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.scene, []).append(index)
    pending: list[int] = []
    while True:
        for group in rng.permutation(len(groups)).tolist():
            pending += list(groups.values())[group]
            while len(pending) >= size:
                yield pending[:size]
                pending = pending[size:]
