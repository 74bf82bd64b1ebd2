"""The llama.cpp backend: scores all admissible commands exactly, many situations at a time, without torch.

Prompts, tokens and probabilities are those of the torch backend, computed from the same GGUF file, up to llama.cpp's
rounding: see docs/reference.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ...protocol.config import PolicyConfig
from ...protocol.situation import Situation
from ...protocol.versions import policy_version
from ..abilities import RESIDUAL
from ..policy import LogProbs, check_version
from ..spaces import ControlVector
from .model import Adapter, LlamaModel, load_model
from .steered import SteeredLlamaPolicy


class LlamaPolicy:
    """One policy version, on a model shared with other versions."""

    abilities = frozenset({RESIDUAL})

    def __init__(self, model: LlamaModel, adapter: Adapter) -> None:
        self._model, self._adapter = model, adapter
        self._version = policy_version(model.digest, adapter)
        self._steered: dict[bytes, SteeredLlamaPolicy] = {}

    @property
    def version(self) -> str:
        return self._version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self.serving():
            return self._model.score(self._model.tokenizer.encode(situations))

    def serving(self) -> AbstractContextManager[None]:
        """Reserve the model, with this version's adapter loaded."""
        return self._model.serving(self, self._version, self._adapter)

    def steered(self, context: ControlVector) -> SteeredLlamaPolicy:
        """Return this version with the control vectors of a context; equal contexts return the same object."""
        policy = SteeredLlamaPolicy(self._model, self.serving, self._version, context)
        return self._steered.setdefault(context.key, policy)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return [self._model.tokenizer.prompt_tokens(situation) for situation in situations]


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
