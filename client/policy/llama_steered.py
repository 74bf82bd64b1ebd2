"""A llama.cpp policy with control vectors, and what would steer it towards each command.

As with the torch backend, vectors act on the moment and the commands, scaled with each token's own hidden state, and
contrasts are read where the head reads. llama.cpp's own control vectors are not used: they are the same at every token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ...protocol.steering import DEPTHS, directions, layers_of
from .llama_branches import rounds
from .policy import LogProbs
from .tokens import Row

if TYPE_CHECKING:
    from .llama_policy import LlamaModel, LlamaPolicy

Floats = NDArray[np.float32]
LAYER, NORMED = "l_out-{}", "result_norm"  # llama.cpp's names of what comes out of a layer, and of what the head reads


class Readout:
    """The end of a model, in numpy: weights of the last norm, and rows of the head.

    Parameters
    ----------
    file
        The GGUF file that the model was loaded from.
    """

    def __init__(self, file: Path) -> None:
        from gguf import GGUFReader

        tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
        self._head: Any = tensors.get("output.weight", tensors["token_embd.weight"])
        self.gamma_d = np.array(tensors["output_norm.weight"].data, dtype=np.float32)

    def rows(self, tokens: NDArray[np.int64]) -> Floats:
        """Rows of the head, shape (len(tokens), hidden)."""
        from gguf.quants import dequantize

        return np.asarray(dequantize(self._head.data[tokens], self._head.tensor_type), dtype=np.float32)

    def contrasts(self, row: Row, normed_Nd: Floats) -> Floats:
        """Contrasts of a row's commands, as `fedoel.client.policy.readout` defines them, shape (A, hidden).

        Parameters
        ----------
        normed_Nd
            What the head reads at the row's nodes that have choices.
        """
        if not len(row.tree.choice_token):
            return np.zeros((len(row.tree.uses), len(self.gamma_d)), dtype=np.float32)
        node_C = np.unique(row.tree.choice_node, return_inverse=True)[1]
        head_Vd = self.rows(row.vocabulary)
        logits_NV = normed_Nd @ head_Vd.T
        probs_NV = np.exp(logits_NV - np.logaddexp.reduce(logits_NV, axis=1, keepdims=True))
        bare_Nd = normed_Nd / self.gamma_d
        unit_Cd = (bare_Nd / np.linalg.norm(bare_Nd, axis=1, keepdims=True))[node_C]
        wished_Cd = self.gamma_d * (self.rows(row.tree.choice_token) - (probs_NV @ head_Vd)[node_C])
        turned_Cd = wished_Cd - unit_Cd * (unit_Cd * wished_Cd).sum(axis=1, keepdims=True)
        found: Floats = row.tree.uses @ (math.sqrt(len(self.gamma_d)) * turned_Cd)
        return found


class SteeredLlamaPolicy:
    """One policy version with the control vectors of one context; zeros change nothing.

    Parameters
    ----------
    owner
        The version without vectors, with which scenes are shared.
    weights
        The context, shape ``(DIMENSION,)``, in lengths of hidden states.
    """

    def __init__(self, model: LlamaModel, owner: LlamaPolicy, weights: Floats) -> None:
        self._model, self._owner = model, owner
        self._directions_KWd = directions(model.file.hidden)
        self._vectors: dict[str, list[Floats]] = {}
        blocks = zip(layers_of(model.file.layers), weights.reshape(len(DEPTHS), -1), self._directions_KWd, strict=True)
        for below, block, ways_Wd in blocks:
            if block.any():  # two blocks may lie at one place, in models of few layers
                self._vectors.setdefault(LAYER.format(below - 1), []).append(block @ ways_Wd)

    @property
    def version(self) -> str:
        return f"{self._owner.version}+context"

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return self._owner.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self._owner.serving():
            return self._model.score(self._model.encoder.encode(situations), self._vectors)

    def features(self, situations: Sequence[Situation]) -> list[Floats]:
        """Contrasts of each situation's admissible commands, in every layer's subspace, shapes ``(A, DIMENSION)``."""
        model, found = self._model, list[Floats]()
        directions_Wd = self._directions_KWd.reshape(-1, model.file.hidden)
        with self._owner.serving():
            for batch in rounds(model.encoder.encode(situations), model.cells - len(model.encoder.head)):
                normed = model.watched(batch, NORMED, self._vectors)
                ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in batch])[:-1]
                parts = zip(batch, np.split(normed, ends), strict=True)
                found += [model.readout.contrasts(row, part) @ directions_Wd.T for row, part in parts]
        return found
