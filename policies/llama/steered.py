"""A llama.cpp policy with control vectors, and the directions that steer it towards each command.

As with the torch backend, vectors are added at the moment and the commands, scaled by the norm of each token's hidden
state, and score gradients are those behind the last layer. llama.cpp's own control vectors have no such scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..policy import LogProbs
from ..spaces import ControlVector
from .branches import fitting_batches
from .model import LlamaModel

Floats = NDArray[np.float32]
Serving = Callable[[], AbstractContextManager[None]]
LAYER, NORMED = "l_out-{}", "result_norm"  # tensors of llama.cpp's graph: a layer's output, and the last norm's


class SteeredLlamaPolicy:
    """One policy version with control vectors; zeros change nothing.

    Parameters
    ----------
    serving
        Reserves the model, with the version's adapter loaded.
    version
        The version without vectors, with which this policy shares cached prefixes.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(self, model: LlamaModel, serving: Serving, version: str, context: ControlVector) -> None:
        self._model, self._serving, self._version = model, serving, f"{version}+context"
        self._directions_KWd = context.space.directions(model.file.hidden)
        self._vectors: dict[str, list[Floats]] = {}
        layers = context.space.layers(model.file.layers)
        blocks = context.weights.reshape(len(layers), -1)
        for below, block, directions_Wd in zip(layers, blocks, self._directions_KWd, strict=True):
            if block.any():  # in models of few layers, two blocks may belong to the same layer
                self._vectors.setdefault(LAYER.format(below - 1), []).append(block @ directions_Wd)

    @property
    def version(self) -> str:
        return self._version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; a control vector adds none."""
        return [self._model.tokenizer.prompt_tokens(situation) for situation in situations]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self._serving():
            return self._model.score(self._model.tokenizer.encode(situations), self._vectors)

    def features(self, situations: Sequence[Situation]) -> list[Floats]:
        """Score gradients of each situation's commands, in every layer's subspace, shape (A, dimension) each."""
        model, features = self._model, list[Floats]()
        directions_Wd = self._directions_KWd.reshape(-1, model.file.hidden)
        with self._serving():
            rows, cells = model.tokenizer.encode(situations), model.cells - len(model.tokenizer.head)
            for batch in fitting_batches(rows, cells):
                normed = model.read_tensor(batch, NORMED, self._vectors)
                ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in batch])[:-1]
                parts = zip(batch, np.split(normed, ends), strict=True)
                features += [model.readout.score_gradients(row, part) @ directions_Wd.T for row, part in parts]
        return features
