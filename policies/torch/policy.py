"""The torch backend: a language model that scores all admissible commands exactly, many situations at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import PolicyConfig
from ...protocol.situation import Situation
from ...protocol.versions import Adapter, policy_version
from ..abilities import ABILITIES
from ..policy import LogProbs, check_version
from ..spaces import ControlVector, SoftPrompt
from ..tokens import TokenizedSituation
from .free import Decoding, FreePolicy, tell
from .model import TorchModel, load_model
from .packed_decoder import PackedDecoder
from .prefix_cache import PrefixCache
from .soft_prompt import PromptedPolicy, SoftPromptPolicy
from .steered import SteeredPolicy


class TorchPolicy:
    """One policy version: the shared model, the version's adapter, and a prefix cache.

    Parameters
    ----------
    adapter
        LoRA weights; empty for fresh ones.
    prefix_cache
        A cache that several versions share because they play the same games; by default a new one.
    live
        Name of the weights that the model has now, in training. If given, no adapter is loaded, and log-probabilities
        are differentiable in the weights in place.
    """

    abilities = ABILITIES

    def __init__(
        self, model: TorchModel, adapter: Adapter, prefix_cache: PrefixCache | None = None, live: str = ""
    ) -> None:
        self.model, self._prefix_cache = model, prefix_cache or model.new_prefix_cache()
        self._adapter, self._live = adapter or model.fresh, live
        self.version = live or policy_version(model.name, self._adapter)
        self._prompted: dict[bytes, PromptedPolicy] = {}
        self._steered: dict[bytes, SteeredPolicy] = {}

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        self._load()
        return self.model.score(situations, self._prefix_cache)

    @contextmanager
    def open_decoder(self, rows: Sequence[TokenizedSituation]) -> Iterator[PackedDecoder]:
        """Open a decoder over rows with this version's adapter."""
        trunk = self.model.trunk
        self._prefix_cache.prepare([row.scene for row in rows], self._load())
        prefixes = self._prefix_cache.pack(row.scene for row in rows)
        yield PackedDecoder(trunk, trunk.run_all, len(self.model.tokenizer.head), rows, prefixes)

    def behind(self, context: SoftPrompt | str) -> PromptedPolicy:
        """Return this version with a context in its prompt, in words or as a soft prompt.

        Equal contexts return the same object, by which batched play recognises policies that can share a batch.
        """
        shared = self.model, self._load, self.version, self._prefix_cache
        if isinstance(context, str):
            words_nd = self.model.trunk.embed(self.model.tokenizer.ids(context))
            return self._prompted.setdefault(context.encode(), PromptedPolicy(*shared, words_nd))
        return self._prompted.setdefault(context.key, SoftPromptPolicy(*shared, context))

    def steered(self, context: ControlVector) -> SteeredPolicy:
        """Return this version with the control vectors of a context; equal contexts return the same object."""
        policy = SteeredPolicy(self.model, self._load, self.version, self._prefix_cache, context)
        return self._steered.setdefault(context.key, policy)

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's commands: see `fedoel.policies.abilities.Embedding`."""
        kept = self._prefix_cache.kept.embeddings if self._prefix_cache.kept else {}
        keys = [commands.key for commands in self.model.tokenizer.encode_whole(situations)]
        missing = {key: situation for key, situation in zip(keys, situations, strict=True) if key not in kept}
        computed = self.model.score_and_embed(list(missing.values()), self._prefix_cache, scored=False)
        fresh = {key: embeddings for key, (_, embeddings) in zip(missing, computed, strict=True)}
        return [fresh[key] if key in fresh else kept[key].cpu().numpy() for key in keys]

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities of each situation's commands, and their embeddings."""
        self._load()
        return self.model.score_and_embed(situations, self._prefix_cache)

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer questions in at most so many tokens, each sampled with its own random generator."""
        self._load()
        return tell(self.model, asked, longest)

    def length(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self.model.tokenizer.ids(text))

    def _load(self) -> str:
        """Load this version's adapter, and return the version name for the prefix cache."""
        return self._live or self.model.load(self._adapter)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return [self.model.tokenizer.prompt_tokens(situation) for situation in situations]


def load_policy(config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> TorchPolicy | FreePolicy:
    """Build a policy, and check its version.

    Raises
    ------
    ModelError
        If base, prompt or adapter differ from those of `version`.
    """
    policy = TorchPolicy(load_model(config, cache), adapter)
    check_version(policy, version)
    return speaking(policy, config)


def speaking(policy: TorchPolicy, config: PolicyConfig, scored: bool = True) -> TorchPolicy | FreePolicy:
    """Wrap a policy for free decoding, if the configuration says so; `scored` as in `Decoding`."""
    if config.decoding != "free":
        return policy
    return FreePolicy(policy, replace(decoding_of(config), scored=scored))


def decoding_of(config: PolicyConfig) -> Decoding:
    """Sampling parameters of free decoding."""
    return Decoding(config.temperature, config.response_tokens, config.alternatives)
