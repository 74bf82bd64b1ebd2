"""The torch backend: a language model that scores all admissible commands exactly, many situations at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...protocol.config import PolicyConfig
from ...protocol.situation import Situation
from ...protocol.versions import policy_version
from ..abilities import ABILITIES
from ..policy import LogProbs, check_version
from ..spaces import ControlVector, SoftPrompt
from ..tokens import Row
from .free import Decoding, FreePolicy, tell
from .model import Adapter, TorchModel, load_model
from .reading import Reading
from .scenes import SceneCache
from .soft_prompt import PromptedPolicy, SoftPromptPolicy
from .steered import SteeredPolicy


class TorchPolicy:
    """One policy version: the shared model, the adapter it needs, and its scenes.

    Parameters
    ----------
    adapter
        LoRA weights; empty for fresh ones.
    scenes
        A cache that outlives this version, where several versions play the same games; by default its own.
    live
        Name of the weights that the model has just now, in training. If it is given, no adapter is loaded, and answers
        are differentiable in the adapter that is there.
    """

    abilities = ABILITIES

    def __init__(self, model: TorchModel, adapter: Adapter, scenes: SceneCache | None = None, live: str = "") -> None:
        self._model, self._scenes = model, scenes or model.new_scenes()
        self._adapter, self._live = adapter or model.fresh, live
        self._version = live or policy_version(model.name, self._adapter)
        self._prompted: dict[bytes, PromptedPolicy] = {}
        self._steered: dict[bytes, SteeredPolicy] = {}

    @property
    def version(self) -> str:
        return self._version

    @property
    def model(self) -> TorchModel:
        return self._model

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        self._load()
        return self._model.score(situations, self._scenes)

    @contextmanager
    def reading(self, rows: Sequence[Row]) -> Iterator[Reading]:
        """Begin to read some rows with this version."""
        trunk = self._model.trunk
        self._scenes.prepare([row.scene for row in rows], self._load())
        pool = self._scenes.pool(row.scene for row in rows)
        yield Reading(trunk, trunk.whole, len(self._model.encoder.head), rows, pool)

    def behind(self, context: SoftPrompt | str) -> PromptedPolicy:
        """Return this version with a context in its prompt, in words or as a soft prompt.

        Who asks for the same gets the same object: what is played together is recognised by it.
        """
        parts = self._model, self._load, self._version, self._scenes
        if isinstance(context, str):
            words = self._model.trunk.embed(self._model.encoder.ids(context))
            return self._prompted.setdefault(context.encode(), PromptedPolicy(*parts, words))
        return self._prompted.setdefault(context.key, SoftPromptPolicy(*parts, context))

    def steered(self, context: ControlVector) -> SteeredPolicy:
        """Return this version with the control vector of a context: one object for all who ask for the same."""
        made = SteeredPolicy(self._model, self._load, self._version, self._scenes, context)
        return self._steered.setdefault(context.key, made)

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer some questions in at most so many tokens, each sampled with its own random stream."""
        self._load()
        return tell(self._model, asked, longest)

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._model.encoder.ids(text))

    def _load(self) -> str:
        """Put this version's adapter in place, and return the name under which scenes are kept."""
        return self._live or self._model.load(self._adapter)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return [self._model.encoder.prompt_tokens(situation) for situation in situations]


def load_policy(config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> TorchPolicy | FreePolicy:
    """Build a policy and check that it is the version that was meant.

    Raises
    ------
    ModelError
        If base, prompt or adapter differ from those of `version`.
    """
    policy = TorchPolicy(load_model(config, cache), adapter)
    check_version(policy, version)
    return speaking(policy, config)


def speaking(policy: TorchPolicy, config: PolicyConfig, scored: bool = True) -> TorchPolicy | FreePolicy:
    """Let a policy write freely, if that is how it is to decode; say whether it is to score commands, too."""
    if config.decoding != "free":
        return policy
    return FreePolicy(policy, replace(decoding_of(config), scored=scored))


def decoding_of(config: PolicyConfig) -> Decoding:
    """How a policy that writes freely samples."""
    return Decoding(config.temperature, config.response_tokens)
