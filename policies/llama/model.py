"""One base model in llama.cpp with its cache of prompts and its adapters. Policies share it.

The same prompts, tokens and probabilities as the torch backend's, computed from the same GGUF file; what differs is how
llama.cpp rounds: see docs/reference.md.
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
from ..lora import write_gguf_lora
from ..model_files import file_digest, find_model, keep_newest
from ..policy import LogProbs
from ..tokens import PromptTokenizer, TokenizedSituation
from .branches import branched, rounds
from .gguf_tokenizer import GgufTokenizer
from .library import LlamaContext, LlamaFile, Tokens
from .likelihood import command_log_probs
from .prefixes import Prefixes
from .readout import Readout
from .weights import weights_file

Adapter = Mapping[str, NDArray[Any]]
Vectors = Mapping[str, Sequence[NDArray[np.float32]]]
NO_VECTORS: Vectors = MappingProxyType({})
ADAPTER_FORMAT = 1  # of our conversion: raise it when the same adapter makes another file
ADAPTERS_KEPT = 8  # on disk


class LlamaModel:
    """One base model in memory with its cache of prompts, for one user at a time.

    Parameters
    ----------
    file
        The base model, a GGUF file.
    cache
        Folder for what is converted: weights and adapters.
    """

    def __init__(self, file: Path, config: PolicyConfig, cache: Path) -> None:
        self.digest, self._cache = file_digest(file), cache
        self.cells, self.threads = config.batch_tokens, config.threads
        self.file = LlamaFile(weights_file(file, self.digest, config.weights, cache), gpu=config.device != "cpu")
        self.tokenizer = PromptTokenizer(GgufTokenizer(self.file))
        self.context = LlamaContext(self.file, self.threads, self.cells)
        self.prefixes = Prefixes(self.context, self.tokenizer.head)
        self._lock = Lock()
        self._adapters: dict[str, Any] = {}
        self._user: object = None

    def score(self, rows: Sequence[TokenizedSituation], vectors: Vectors = NO_VECTORS) -> list[LogProbs]:
        """Log-probabilities of each row's commands under the adapter that is in place.

        Parameters
        ----------
        vectors
            What to add to the residual stream of moments and commands, by names of llama.cpp's tensors.
        """
        asking = [row for row in rows if len(row.tree.choice_token)]
        scored = iter(
            [
                one
                for batch in rounds(asking, self.cells - len(self.tokenizer.head))
                for one in self._score(batch, vectors)
            ]
        )
        return [next(scored) if len(row.tree.choice_token) else np.zeros(1, np.float32) for row in rows]

    def watched(self, rows: Sequence[TokenizedSituation], tensor: str, vectors: Vectors) -> NDArray[np.float32]:
        """Read a tensor of llama.cpp's graph while it evaluates rows that fit into the cache together."""
        with self._laid_out(rows) as tokens, self.context.steered(vectors):
            return self.context.watched(tokens, tensor)

    @contextmanager
    def _laid_out(self, rows: Sequence[TokenizedSituation]) -> Iterator[Tokens]:
        self.prefixes.prepare((row.scene for row in rows), room=sum(len(row.tokens) for row in rows))
        with branched(self.context, self.prefixes, rows) as tokens:
            yield tokens

    def _score(self, rows: Sequence[TokenizedSituation], vectors: Vectors) -> list[LogProbs]:
        columns = np.unique(np.concatenate([row.vocabulary for row in rows]))
        with self._laid_out(rows) as tokens, self.context.steered(vectors):
            logits = self.context.decode(tokens, columns)
        ends = np.cumsum([len(np.unique(row.tree.choice_node)) for row in rows])[:-1]
        return [command_log_probs(row, part, columns) for row, part in zip(rows, np.split(logits, ends), strict=True)]

    @contextmanager
    def serving(self, user: object, version: str, adapter: Adapter) -> Iterator[None]:
        """Put a user's adapter in place; what the cache holds of another user's, or of a failure's, is forgotten."""
        with self._lock:
            if self._user is not user:
                self.context.adapt(self._loaded(version, adapter))
                self.prefixes.clear()
            self._user = None
            yield
            self._user = user

    @cached_property
    def readout(self) -> Readout:
        """The end of the model in numpy, read when it is first asked for."""
        return Readout(self.file.path)

    def _loaded(self, version: str, adapter: Adapter) -> Any:
        """Return an adapter in llama.cpp's memory, converted first if it is new here; None for an empty one."""
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
