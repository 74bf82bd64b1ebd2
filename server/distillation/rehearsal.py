"""Rehearsal states, prepared for training: what the frozen layers make of them is computed once and reused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...client.policy.scenes import SceneCache
from ...client.policy.segments import Attended, Span, causal
from ...client.policy.tokens import Ids, Row
from ...client.policy.torch_policy import TorchModel
from ...protocol.situation import Situation


@dataclass(frozen=True)
class Rehearsal:
    """Public states to train on. `bottoms` are hidden states below the first adapted layer, shapes (t, hidden)."""

    model: TorchModel
    scenes: SceneCache
    rows: Sequence[Row]
    bottoms: Sequence[torch.Tensor]

    @classmethod
    @torch.no_grad()
    def prepare(cls, model: TorchModel, situations: Sequence[Situation]) -> Rehearsal:
        """Tokenise the states and run them through the layers without adapters."""
        rows, scenes = model.encoder.encode(situations), model.new_scenes()
        bottoms: list[torch.Tensor] = []
        for chunk in model.chunks(rows):
            scenes.prepare([row.scene for row in chunk], version=None)
            hidden, _ = model.run(chunk, model.trunk.first, scenes)
            bottoms += [part.clone() for part in hidden.split([len(row.tokens) for row in chunk])]
        return cls(model, scenes, rows, bottoms)

    def log_probs(self, chosen: Sequence[int]) -> list[torch.Tensor]:
        """Log-probabilities of the chosen states' commands, differentiable in the adapter.

        The head and every scene are read once, however many of the states share them.
        """
        rows = [self.rows[index] for index in chosen]
        scenes = list(dict.fromkeys(row.scene for row in rows))
        spans, starts = self._spans(rows, scenes)
        hidden = torch.cat([*self._shared(scenes), *(self.bottoms[index] for index in chosen)])
        attended = Attended(self.model.trunk.layout(spans, 0))
        top = self.model.trunk.run(hidden, self.model.trunk.first, self.model.trunk.layers, attended)
        return self.model.trunk.log_probs(top, rows, starts)

    def _shared(self, scenes: Sequence[Ids]) -> list[torch.Tensor]:
        self.scenes.prepare(scenes, version=None)
        return [self.scenes.hidden(segment).clone() for segment in (self.model.encoder.head, *scenes)]

    def _spans(self, rows: Sequence[Row], scenes: Sequence[Ids]) -> tuple[list[Span], list[int]]:
        """Head, scenes and rows one after the other: the keys of each are its own place in the packed row."""
        head = np.arange(len(self.model.encoder.head))
        spans = [Span(len(head), head, head[:0], causal(len(head)))]
        places: dict[Ids, np.ndarray] = {}
        start = len(head)
        for scene in scenes:
            places[scene] = np.arange(start, start + len(scene))
            spans.append(Span(len(scene), len(head) + np.arange(len(scene)), head, causal(len(scene))))
            start += len(scene)
        starts: list[int] = []
        for row in rows:
            starts.append(start)
            spans.append(row.span(len(head) + len(row.scene), np.concatenate([head, places[row.scene]])))
            start += spans[-1].length
        return spans, starts

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """Endless batches of state indices; states that share a scene stay together, in a new order every epoch."""
        groups: dict[Ids, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(row.scene, []).append(index)
        pending: list[int] = []
        while True:
            for group in rng.permutation(len(groups)).tolist():
                pending += list(groups.values())[group]
                while len(pending) >= size:
                    yield pending[:size]
                    pending = pending[size:]
