"""One base model in llama.cpp with its prefix cache and adapters, which all policies of this backend share.

Prompts, tokens and probabilities are those of the torch backend, computed from the same GGUF file, up to llama.cpp's
rounding: see docs/reference.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.versions import Adapter
from ..lora import write_gguf_lora
from ..model_files import file_digest, find_model, keep_newest
from ..policy import LogProbs
from ..tokens import PromptTokenizer, TokenizedSituation
from .gguf_tokenizer import GgufTokenizer
from .library import LlamaContext, LlamaFile, Tokens
from .prefix_cache import PrefixCache, branched, fitting_batches
from .readout import Readout, command_log_probs
from .weights import weights_file

Vectors = Mapping[str, Sequence[NDArray[np.float32]]]
NO_VECTORS: Vectors = MappingProxyType({})
ADAPTER_FORMAT = 1  # raise it when the conversion of adapters changes
ADAPTERS_KEPT = 8  # converted files on disk


class LlamaModel:
    """One base model in memory with its prefix cache, used by one policy at a time.

    Parameters
    ----------
    file
        The base model, a GGUF file.
    cache
        Folder for converted weights and adapters.
    """

    def __init__(self, file: Path, config: PolicyConfig, cache: Path) -> None:
        self.digest, self._cache = file_digest(file), cache
        self.cells, self.threads = config.batch_tokens, config.threads
        self.file = LlamaFile(weights_file(file, self.digest, config.weights, cache), gpu=config.device != "cpu")
        self.tokenizer = PromptTokenizer(GgufTokenizer(self.file))
        self.context = LlamaContext(self.file, self.threads, self.cells)
        self.prefix_cache = PrefixCache(self.context, self.tokenizer.head)
        self._lock = Lock()
        self._adapters: dict[str, Any] = {}
        self._user: object = None

    def score(self, rows: Sequence[TokenizedSituation], vectors: Vectors = NO_VECTORS) -> list[LogProbs]:
        """Log-probabilities of each row's commands under the loaded adapter.

        Parameters
        ----------
        vectors
            Vectors to add to the residual stream of moments and commands, by names of llama.cpp's tensors.
        """
        with_choices = [row for row in rows if len(row.tree.choice_token)]
        batches = fitting_batches(with_choices, self.cells - len(self.tokenizer.head))
        scored = iter([log_probs for batch in batches for log_probs in self._score(batch, vectors)])
        return [next(scored) if len(row.tree.choice_token) else np.zeros(1, np.float32) for row in rows]

    def read_tensor(self, rows: Sequence[TokenizedSituation], tensor: str, vectors: Vectors) -> NDArray[np.float32]:
        """Evaluate rows that fit into the cache together, and return a tensor of llama.cpp's compute graph."""
        with self._laid_out(rows) as tokens, self.context.steered(vectors):
            return self.context.read_tensor(tokens, tensor)

    @contextmanager
    def _laid_out(self, rows: Sequence[TokenizedSituation]) -> Iterator[Tokens]:
        self.prefix_cache.prepare((row.scene for row in rows), room=sum(len(row.tokens) for row in rows))
        with branched(self.context, self.prefix_cache, rows) as tokens:
            yield tokens

    def _score(self, rows: Sequence[TokenizedSituation], vectors: Vectors) -> list[LogProbs]:
        columns = np.unique(np.concatenate([row.vocabulary for row in rows]))
        with self._laid_out(rows) as tokens, self.context.steered(vectors):
            logits = self.context.decode(tokens, columns)
        ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in rows])[:-1]
        return [command_log_probs(row, part, columns) for row, part in zip(rows, np.split(logits, ends), strict=True)]

    @contextmanager
    def serving(self, user: object, version: str, adapter: Adapter) -> Iterator[None]:
        """Load a user's adapter; clears the prefix cache after another user, or after a failure."""
        with self._lock:
            if self._user is not user:
                self.context.adapt(self._loaded(version, adapter))
                self.prefix_cache.clear()
            self._user = None
            yield
            self._user = user

    @cached_property
    def readout(self) -> Readout:
        """Last norm and LM head in numpy, read from the file once."""
        return Readout(self.file.path)

    def _loaded(self, version: str, adapter: Adapter) -> Any:
        """Return an adapter in llama.cpp's memory, converted to GGUF once; None for an empty one."""
        if adapter and version not in self._adapters:
            path = self._cache / "adapters" / f"{version}-{ADAPTER_FORMAT}.gguf"
            if not path.exists():
                keep_newest(path.parent, ADAPTERS_KEPT - 1)
                write_gguf_lora(path, adapter, self.file.heads)
            self._adapters[version] = self.file.adapter(path)
        return self._adapters.get(version)


@lru_cache(maxsize=1)
def load_model(config: PolicyConfig, cache: Path) -> LlamaModel:
    """Load the base model, once per process.

    Raises
    ------
    ModelError
        If there is no such model, or llama.cpp cannot load it.
    """
    file = find_model(config.base)
    if file.is_dir():
        raise ModelError(f"policy.backend 'llama' needs a GGUF file as policy.base, but {file} is a folder")
    return LlamaModel(file, config, cache)
