"""A llama.cpp policy with control vectors, and what would steer it towards each command.

As with the torch backend, vectors act on the moment and the commands, scaled with each token's own hidden state, and
contrasts are read where the head reads. llama.cpp's own control vectors are not used: they are the same at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..policy import LogProbs
from ..spaces import ControlVector
from .branches import rounds
from .model import LlamaModel

Floats = NDArray[np.float32]
Serving = Callable[[], AbstractContextManager[None]]
LAYER, NORMED = "l_out-{}", "result_norm"  # llama.cpp's names of what comes out of a layer, and of what the head reads


class SteeredLlamaPolicy:
    """One policy version with the control vectors of one context; zeros change nothing.

    Parameters
    ----------
    serving
        Puts the version's adapter in place for as long as the model is used.
    version
        The version without vectors, with which scenes are shared.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(self, model: LlamaModel, serving: Serving, version: str, context: ControlVector) -> None:
        self._model, self._serving, self._version = model, serving, f"{version}+context"
        self._directions_KWd = context.space.directions(model.file.hidden)
        self._vectors: dict[str, list[Floats]] = {}
        layers = context.space.layers(model.file.layers)
        blocks = context.weights.reshape(len(layers), -1)
        for below, block, ways_Wd in zip(layers, blocks, self._directions_KWd, strict=True):
            if block.any():  # two blocks may lie at one place, in models of few layers
                self._vectors.setdefault(LAYER.format(below - 1), []).append(block @ ways_Wd)

    @property
    def version(self) -> str:
        return self._version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return [self._model.encoder.prompt_tokens(situation) for situation in situations]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self._serving():
            return self._model.score(self._model.encoder.encode(situations), self._vectors)

    def features(self, situations: Sequence[Situation]) -> list[Floats]:
        """Contrasts of each situation's admissible commands, in every layer's subspace, shapes ``(A, dimension)``."""
        model, found = self._model, list[Floats]()
        directions_Wd = self._directions_KWd.reshape(-1, model.file.hidden)
        with self._serving():
            for batch in rounds(model.encoder.encode(situations), model.cells - len(model.encoder.head)):
                normed = model.watched(batch, NORMED, self._vectors)
                ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in batch])[:-1]
                parts = zip(batch, np.split(normed, ends), strict=True)
                found += [model.readout.contrasts(row, part) @ directions_Wd.T for row, part in parts]
        return found
