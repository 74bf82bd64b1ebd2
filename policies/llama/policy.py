"""The llama.cpp backend: scores all admissible commands exactly, many situations at a time, without torch.

Prompts, tokens and probabilities are those of the torch backend, computed from the same GGUF file, up to llama.cpp's
rounding: see docs/reference.md. So are control vectors: they are added at the moment and the commands, scaled by the
norm of each token's hidden state (llama.cpp's own have no such scale), and score gradients are those behind the last
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import PolicyConfig
from ...protocol.situation import Situation
from ...protocol.versions import Adapter, policy_version
from ..abilities import EMBEDDING, RESIDUAL
from ..policy import LogProbs, check_version
from ..spaces import ControlVector
from .model import LAYER, LlamaModel, load_model
from .prefix_cache import fitting_batches

NORMED = "result_norm"  # tensor of llama.cpp's graph: the last norm's output


class LlamaPolicy:
    """One policy version, on a model shared with other versions."""

    abilities = frozenset({RESIDUAL, EMBEDDING})

    def __init__(self, model: LlamaModel, adapter: Adapter) -> None:
        self.model, self._adapter = model, adapter
        self.version = policy_version(model.digest, adapter)
        self._steered: dict[bytes, SteeredLlamaPolicy] = {}

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self.serving():
            return self.model.score(self.model.tokenizer.encode(situations))

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's commands: see `fedoel.policies.abilities.Embedding`."""
        with self.serving():
            return self.model.embed(self.model.tokenizer.encode_whole(situations))

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities of each situation's commands, and their embeddings, in two passes."""
        return list(zip(self.score(situations), self.embed(situations), strict=True))

    def serving(self) -> AbstractContextManager[None]:
        """Reserve the model, with this version's adapter loaded."""
        return self.model.serving(self, self.version, self._adapter)

    def steered(self, context: ControlVector) -> SteeredLlamaPolicy:
        """Return this version with the control vectors of a context; equal contexts return the same object."""
        return self._steered.setdefault(context.key, SteeredLlamaPolicy(self, context))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return [self.model.tokenizer.prompt_tokens(situation) for situation in situations]


class SteeredLlamaPolicy:
    """One policy version with control vectors; zeros change nothing.

    Parameters
    ----------
    policy
        The policy without vectors, with which this one shares cached prefixes.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(self, policy: LlamaPolicy, context: ControlVector) -> None:
        self._policy, self.version, model = policy, f"{policy.version}+context", policy.model
        self._directions_KWd = context.space.directions(model.file.hidden)
        self._vectors: dict[str, list[NDArray[np.float32]]] = {}
        layers = context.space.layers(model.file.layers)
        blocks = context.weights.reshape(len(layers), -1)
        for below, block, directions_Wd in zip(layers, blocks, self._directions_KWd, strict=True):
            if block.any():  # in models of few layers, two blocks may belong to the same layer
                self._vectors.setdefault(LAYER.format(below - 1), []).append(block @ directions_Wd)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; a control vector adds none."""
        return self._policy.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self._policy.serving():
            return self._policy.model.score(self._policy.model.tokenizer.encode(situations), self._vectors)

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Score gradients of each situation's commands, in every layer's subspace, shape (A, dimension) each."""
        model, features = self._policy.model, list[NDArray[np.float32]]()
        directions_Wd = self._directions_KWd.reshape(-1, model.file.hidden)
        with self._policy.serving():
            rows, cells = model.tokenizer.encode(situations), model.cells - len(model.tokenizer.head)
            for batch in fitting_batches(rows, cells):
                normed = model.read_tensor(batch, NORMED, self._vectors)
                ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in batch])[:-1]
                parts = zip(batch, np.split(normed, ends), strict=True)
                features += [model.readout.score_gradients(row, part) @ directions_Wd.T for row, part in parts]
        return features


def load_policy(config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> LlamaPolicy:
    """Build a policy, and check its version.

    Raises
    ------
    ModelError
        If base, prompt or adapter differ from those of `version`.
    """
    policy = LlamaPolicy(load_model(config, cache), adapter)
    check_version(policy, version)
    return policy
