"""One base model in llama.cpp with its tokenizer, prefix cache and adapters, which all policies of this backend share.

Prompts, tokens and probabilities are those of the torch backend, computed from the same GGUF file, up to llama.cpp's
rounding: see docs/reference.md.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...protocol.config import WEIGHTS, PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.versions import Adapter
from ..lora import write_gguf_lora
from ..model_files import draft_of, file_digest, find_model, keep_newest
from ..policy import LogProbs
from ..tokens import PromptTokenizer, TokenizedSituation, WholeCommands
from .library import LlamaContext, LlamaFile, Tokens, quiet
from .prefix_cache import PrefixCache, branched, fitting_batches
from .readout import Readout, command_log_probs

LAYER = "l_out-{}"  # tensor of llama.cpp's graph: a layer's output
Vectors = Mapping[str, Sequence[NDArray[np.float32]]]
NO_VECTORS: Vectors = MappingProxyType({})
AS_THEY_ARE, Q8, HALF = WEIGHTS
_TYPES = {Q8: llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, HALF: llama_cpp.LLAMA_FTYPE_MOSTLY_F16}
COPY_FORMAT = 1
ADAPTER_FORMAT = 1  # raise it when the conversion of adapters changes
ADAPTERS_KEPT = 8  # converted files on disk


class GgufTokenizer:
    """The tokenizer of a GGUF file, by llama.cpp: gives the same token ids as transformers does.

    Raises
    ------
    ModelError
        If the file has no chat template.
    """

    def __init__(self, file: LlamaFile) -> None:
        self._file, self._template = file, file.metadata("tokenizer.chat_template")
        if not self._template:
            raise ModelError(f"{file.path} has no chat template: choose a model that was tuned for chat")

    @property
    def eos_token_id(self) -> int:
        return self._file.end

    def get_chat_template(self) -> str:
        """Return the file's template."""
        return self._template

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        chat_template: str,
        tokenize: bool,
        add_generation_prompt: bool,
        **variables: Any,
    ) -> str:
        """Render messages with the Jinja settings of transformers; `tokenize` must be false."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        special = {"bos_token": self._file.text(self._file.begin), "eos_token": self._file.text(self._file.end)}
        try:
            return environment.from_string(chat_template).render(
                messages=conversation, add_generation_prompt=add_generation_prompt, raise_exception=raise_exception,
                **special, **variables,
            )  # fmt: skip
        except TemplateError as error:
            raise ModelError(f"the chat template of {self._file.path} cannot be used: {error}") from error

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Return the text's token ids, without added special tokens."""
        return {"input_ids": self._file.tokenise(text)}


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
        self.cells, self.threads, self.lora_layers = config.batch_tokens, config.threads, config.lora_layers
        self.file = _opened(file, self.digest, config, cache)
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

    def embed(self, commands: Sequence[WholeCommands]) -> list[NDArray[np.float32]]:
        """Hidden states at each command's last token, below the first layer with an adapter, shapes (A, hidden)."""
        layer, embeddings = LAYER.format(self.file.layers - self.lora_layers - 1), list[NDArray[np.float32]]()
        remaining = iter(commands)
        for batch in fitting_batches([c.whole for c in commands], self.cells - len(self.tokenizer.head)):
            hidden = self.read_tensor(batch, layer, NO_VECTORS)
            ends = np.cumsum([len(row.tokens) for row in batch])[:-1]
            embeddings += [part[next(remaining).last] for part in np.split(hidden, ends)]
        return embeddings

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
                write_gguf_lora(path, adapter, self.file.target)
            try:
                self._adapters[version] = self.file.adapter(path)
            except ModelError:  # the copy is damaged
                path.unlink(missing_ok=True)
                write_gguf_lora(path, adapter, self.file.target)
                self._adapters[version] = self.file.adapter(path)
        return self._adapters.get(version)


def _opened(base: Path, digest: str, config: PolicyConfig, cache: Path) -> LlamaFile:
    """Open the file to compute with; a copy in the cache that is damaged is written again."""
    file, gpu = weights_file(base, digest, config.weights, cache), config.device != "cpu"
    try:
        return LlamaFile(file, gpu=gpu)
    except ModelError:
        if file == base:
            raise
        file.unlink(missing_ok=True)
        return LlamaFile(weights_file(base, digest, config.weights, cache), gpu=gpu)


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


def weights_file(base: Path, digest: str, weights: str, cache: Path) -> Path:
    """Path of the GGUF file to compute with: the base model's file, or a copy in another weight format, written once.

    llama.cpp rounds activations to the format of the weights: to eight bits for quantised weights, to float16 for
    float16. Probabilities from a quantised file therefore differ noticeably from the torch backend's, which dequantises
    it; those from a float16 copy agree. The copy is exact, since a 4-bit weight times its scale fits into float16.

    Parameters
    ----------
    digest
        Digest of the base file, which names the copy.
    weights
        ``file``, ``q8_0`` or ``f16``.

    Raises
    ------
    ModelError
        If llama.cpp cannot convert the file, or there is no room for the copy.
    """
    if weights == AS_THEY_ARE:
        return base
    copy = cache / "models" / f"{digest[:16]}-{weights}-{COPY_FORMAT}.gguf"
    if not copy.exists():
        with draft_of(copy) as draft:
            convert(base, draft, weights)
    return copy


def convert(source: Path, target: Path, weights: str) -> None:
    """Write a GGUF file in another weight format, by llama.cpp's own quantisation; raises as `weights_file` does."""
    quiet()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = _TYPES[weights], True
    settings.nthread = 1
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(settings)):
        raise ModelError(
            f"llama.cpp cannot write the weights of {source} as {weights}: is it whole, and is there room?"
        )
