"""A torch policy with a control vector, and what would steer it towards each command.

The vector is added to the residual stream of the moment and of the commands; scenes are left alone, so that what is
cached of them serves every context. What steers towards a command is read where the head reads, behind the last layer:
exact for a vector that is added there, and what the residual stream carries up from one added some layers below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..policy import LogProbs
from ..spaces import ControlVector
from ..tokens import Row
from .model import TorchModel
from .reading import Load, Reading, score
from .readout import contrasts
from .scenes import Pool, SceneCache
from .segments import Attended


class SteeredPolicy:
    """One policy version with the control vector of one context; zeros change nothing.

    Parameters
    ----------
    load
        Puts the version's adapter in place.
    context
        Coordinates of the control vectors.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(self, model: TorchModel, load: Load, version: str, scenes: SceneCache, context: ControlVector) -> None:
        self._model, self._load, self._scenes = model, load, scenes
        self._version, self._lock = f"{version}+context", RLock()
        self._space, self._layers = context.space, context.space.layers(model.trunk.layers)
        self._weights = np.array(context.weights).reshape(len(self._layers), -1)

    @property
    def version(self) -> str:
        return self._version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return [self._model.encoder.prompt_tokens(situation) for situation in situations]

    @property
    def model(self) -> TorchModel:
        return self._model

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return score(self, situations)

    @contextmanager
    def reading(self, rows: Sequence[Row]) -> Iterator[Reading]:
        """Begin to read some rows with the control vector."""
        with self._lock:
            pool = self._pool(rows)
            yield Reading(self._model.trunk, self._through, len(self._model.encoder.head), rows, pool)

    def _through(self, hidden: torch.Tensor, attended: Attended) -> torch.Tensor:
        """Take hidden states through all layers, with the vectors added on the way."""
        trunk, below = self._model.trunk, 0
        for layer, weights, directions_Wd in zip(self._layers, self._weights, self._directions_KWd, strict=True):
            if not weights.any():
                continue
            hidden = trunk.run(hidden, below, layer, attended)
            vector = torch.from_numpy(weights).to(hidden) @ directions_Wd.to(hidden)
            hidden, below = hidden + hidden.norm(dim=-1, keepdim=True) * vector, layer
        return trunk.run(hidden, below, trunk.layers, attended)

    @torch.inference_mode()
    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Contrasts of each situation's admissible commands, in every layer's subspace, shapes ``(A, dimension)``."""
        model, found = self._model, list[NDArray[np.float32]]()
        with self._lock:
            for rows in model.chunks(model.encoder.encode(situations)):
                pool = self._pool(rows)
                spans, starts = model.spans(rows, pool)
                attended = Attended(model.trunk.layout(spans, pool.keys), pool.cached)
                top = self._through(model.trunk.embed([token for row in rows for token in row.tokens]), attended)
                found += [self._coordinates(part) for part in contrasts(model.trunk, top, rows, starts)]
        return found

    def _coordinates(self, contrasts_Ad: torch.Tensor) -> NDArray[np.float32]:
        directions_Wd = self._directions_KWd.flatten(0, 1).to(contrasts_Ad)
        found: NDArray[np.float32] = (contrasts_Ad @ directions_Wd.T).cpu().numpy()
        return found

    def _pool(self, rows: Sequence[Row]) -> Pool:
        self._scenes.prepare([row.scene for row in rows], self._load())
        return self._scenes.pool(row.scene for row in rows)

    @cached_property
    def _directions_KWd(self) -> torch.Tensor:
        return torch.from_numpy(self._space.directions(self._model.base.head.shape[1]))
