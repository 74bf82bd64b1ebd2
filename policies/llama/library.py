"""llama.cpp behind a few plain calls: a model in memory, a context with its cache, batches of tokens in, logits out.

The low-level functions of llama-cpp-python are used, because its high-level class knows one sequence only. Nothing
here knows about games.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import ModelError
from ..lora import Heads
from .watch import Watch

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
SEQUENCES = 256  # llama.cpp's own limit
BATCH = 1024  # tokens in one call
FIRST_TEXT = 256  # bytes of a first guess at how long a string is
WHOLE = -1


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _say_nothing(level: int, text: bytes, data: Any) -> None:
    """Keep llama.cpp's log to itself: what fails is raised, and no text of a prompt may be printed."""


def quiet() -> None:
    """Silence llama.cpp, whose log goes to the terminal."""
    llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch for one call of llama.cpp.

    Parameters
    ----------
    ids, positions
        Token numbers, and their places in their prompts, shape (T,).
    sequences
        Those that each token belongs to. It sees what lies before it in the first of them, which must be so in all.
    asked
        Whether the logits behind a token are wanted, shape (T,).
    """

    ids: Ints
    positions: Ints
    sequences: Sequence[Sequence[int]]
    asked: NDArray[np.bool_]

    def part(self, start: int, stop: int) -> Tokens:
        """Return a slice."""
        cut = slice(start, stop)
        return Tokens(self.ids[cut], self.positions[cut], self.sequences[cut], self.asked[cut])

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Put batches one after the other."""
        ids, positions, asked = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "positions", "asked")
        )
        return cls(ids, positions, [own for part in parts for own in part.sequences], asked)


class LlamaFile:
    """A GGUF model in memory, mapped from its file where the system can.

    Raises
    ------
    ModelError
        If the file is no model that llama.cpp can load.
    """

    def __init__(self, path: Path, gpu: bool) -> None:
        quiet()
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = -1 if gpu else 0
        self.path, self.handle = path, llama_cpp.llama_model_load_from_file(os.fsencode(path), settings)
        if not self.handle:
            raise ModelError(f"{path} cannot be loaded by llama.cpp: policy.base must be a GGUF file of a decoder")
        weakref.finalize(self, llama_cpp.llama_model_free, self.handle)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self.handle)
        self.tokens = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self.hidden = int(llama_cpp.llama_model_n_embd(self.handle))
        self.layers = int(llama_cpp.llama_model_n_layer(self.handle))
        self.begin = int(llama_cpp.llama_vocab_bos(self._vocabulary))
        self.end = int(llama_cpp.llama_vocab_eos(self._vocabulary))
        self.heads = Heads(
            int(llama_cpp.llama_model_n_head(self.handle)), int(llama_cpp.llama_model_n_head_kv(self.handle))
        )

    def says(self, key: str) -> str:
        """Return a value of the file's metadata, or nothing."""
        size = FIRST_TEXT
        while True:
            text = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), text, size)
            if length < size:
                return text.value.decode() if length >= 0 else ""
            size = length + 1

    def text(self, token: int) -> str:
        """Return a token as the vocabulary has it, or nothing for none."""
        return llama_cpp.llama_vocab_get_text(self._vocabulary, token).decode() if token >= 0 else ""

    def tokenise(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens, with nothing added; special tokens in it are recognised."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), ids, len(ids), False, True)
        if count < 0:
            raise ModelError("llama.cpp cannot tokenise a prompt: the model's vocabulary is damaged")
        return list(ids[:count])

    def adapter(self, path: Path) -> Any:
        """Load a LoRA adapter beside the model.

        Raises
        ------
        ModelError
            If the file is damaged, or of another model.
        """
        handle = llama_cpp.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not handle:
            raise ModelError(f"the adapter {path} does not fit the base model, or is damaged: delete it")
        return handle


class LlamaContext:
    """One cache of keys and values over a model, for many sequences that may share cells.

    Parameters
    ----------
    threads
        0 for as many as there are processors.
    cells
        Tokens that it holds: 23 KB each, for a model of 30 layers with three key-value heads.
    """

    def __init__(self, model: LlamaFile, threads: int, cells: int) -> None:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = cells, BATCH, BATCH // 2
        settings.n_seq_max = settings.n_outputs_max = settings.n_outputs_max_per_seq = SEQUENCES
        settings.n_threads = settings.n_threads_batch = threads or processors()
        settings.kv_unified = True  # sequences share cells only in one stream
        self.model, self.cells, self._watch = model, cells, Watch(model.hidden)
        settings.cb_eval = self._watch.callback
        self.handle = llama_cpp.llama_init_from_model(model.handle, settings)
        if not self.handle:
            raise ModelError("llama.cpp cannot make its cache: there is not enough memory")
        weakref.finalize(self, llama_cpp.llama_free, self.handle)
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = int(llama_cpp.llama_n_batch(self.handle))  # a larger one would abort the process
        self.evaluated = 0

    def decode(self, tokens: Tokens, columns: NDArray[np.int64]) -> Floats:
        """Evaluate tokens, and return some logits of those that were asked for, shape (asked, columns).

        Raises
        ------
        ModelError
            If they do not fit into the cache.
        """
        pieces = _pieces(tokens.asked, self._batch, SEQUENCES)
        parts = [self._decode(tokens.part(start, stop), columns) for start, stop in pieces]
        return np.concatenate(parts) if parts else np.zeros((0, len(columns)), dtype=np.float32)

    def _decode(self, tokens: Tokens, columns: NDArray[np.int64]) -> Floats:
        batch, _kept = as_batch(tokens)
        if code := llama_cpp.llama_decode(self.handle, batch):
            raise ModelError(
                f"llama.cpp refused a batch of {len(tokens.ids)} tokens (code {code}) with room for {self.cells}: "
                "raise policy.batch-tokens, if prompts are that long"
            )
        self.evaluated += len(tokens.ids)
        rows = int(tokens.asked.sum())
        if not rows:
            return np.zeros((0, len(columns)), dtype=np.float32)
        logits = llama_cpp.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(logits, (rows, self.model.tokens))[:, columns]

    def share(self, source: int, target: int, stop: int = WHOLE) -> None:
        """Let a sequence begin with the cells of another, up to position `stop`; no cell is copied."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, stop)

    def drop(self, sequence: int) -> None:
        """Take a sequence out of the cache; cells that no other uses are free."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Empty the cache."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def adapt(self, adapter: Any) -> None:
        """Put a loaded adapter in place, or none; what is in the cache was made by the one before."""
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(1.0)
        llama_cpp.llama_set_adapters_lora(self.handle, handles, 0 if adapter is None else 1, scales)

    @contextmanager
    def steered(self, vectors: Mapping[str, Sequence[Floats]]) -> Iterator[None]:
        """Add vectors to the residual stream at every token that is evaluated meanwhile, in lengths of what is there.

        Parameters
        ----------
        vectors
            By names of tensors of llama.cpp's graph, each of shape (hidden,).
        """
        self._watch.added.update({name.encode(): each for name, each in vectors.items()})
        try:
            yield
        finally:
            self._watch.added.clear()

    def watched(self, tokens: Tokens, tensor: str) -> Floats:
        """Evaluate tokens up to a tensor of llama.cpp's graph, and return its rows.

        What lies above is not computed, so that these tokens' cells are to be dropped.
        """
        self._watch.wanted = tensor.encode()
        try:
            self.decode(tokens, np.zeros(0, dtype=np.int64))
            return np.concatenate([np.zeros((0, self.model.hidden), np.float32), *self._watch.read])
        finally:
            self._watch.wanted = b""
            self._watch.read.clear()


def as_batch(tokens: Tokens) -> tuple[Any, object]:
    """Return llama.cpp's form of a batch, and the arrays that must live as long as it does."""
    counts = np.array([len(own) for own in tokens.sequences], dtype=np.int32)
    members = np.array([each for own in tokens.sequences for each in own], dtype=np.int32)
    starts = members.ctypes.data + 4 * (np.cumsum(counts, dtype=np.uint64) - counts.astype(np.uint64))
    ids, positions = (np.ascontiguousarray(array, dtype=np.int32) for array in (tokens.ids, tokens.positions))
    asked = tokens.asked.astype(np.int8)
    batch = llama_cpp.llama_batch(
        len(ids),
        _pointer(ids, ctypes.c_int32),
        None,
        _pointer(positions, ctypes.c_int32),
        _pointer(counts, ctypes.c_int32),
        _pointer(starts, ctypes.POINTER(ctypes.c_int32)),
        _pointer(asked, ctypes.c_int8),
    )
    return batch, (counts, members, starts, ids, positions, asked)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pieces(asked: NDArray[np.bool_], most: int, most_asked: int) -> list[tuple[int, int]]:
    """Cut tokens, in their order, into as few calls as llama.cpp allows."""
    pieces, start, wanted = list[tuple[int, int]](), 0, 0
    for place, one in enumerate(asked):
        if place - start == most or wanted + int(one) > most_asked:
            pieces.append((start, place))
            start, wanted = place, 0
        wanted += int(one)
    return [*pieces, (start, len(asked))] if len(asked) else []


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
