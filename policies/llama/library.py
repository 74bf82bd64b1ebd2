"""llama.cpp behind a few calls: a model in memory, a context with its key-value cache, token batches in, logits out.

It uses the low-level functions of llama-cpp-python, because its high-level class handles a single sequence. Nothing
here depends on games.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import ModelError
from ..lora import Target
from .graph_hook import GraphHook

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
SEQUENCES = 256  # llama.cpp's limit
BATCH = 1024  # tokens per call
FIRST_BUFFER = 256  # bytes; enlarged if a string is longer
TO_END = -1


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _say_nothing(level: int, text: bytes, data: Any) -> None:
    """Discard llama.cpp's log: failures are raised, and prompts must not be printed."""


def quiet() -> None:
    """Silence llama.cpp's log, which goes to the terminal."""
    llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of tokens for llama.cpp.

    Parameters
    ----------
    ids, positions
        Token ids, and their positions in their prompts, shape (T,).
    sequences
        The sequences that each token belongs to. It attends to the earlier tokens of its first sequence; its other
        sequences must hold the same ones.
    wants_logits
        Whether the logits behind a token are needed, shape (T,).
    """

    ids: Ints
    positions: Ints
    sequences: Sequence[Sequence[int]]
    wants_logits: NDArray[np.bool_]

    def part(self, start: int, stop: int) -> Tokens:
        """Return a slice."""
        cut = slice(start, stop)
        return Tokens(self.ids[cut], self.positions[cut], self.sequences[cut], self.wants_logits[cut])

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Concatenate batches."""
        ids, positions, wants_logits = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "positions", "wants_logits")
        )
        return cls(ids, positions, [sequences for part in parts for sequences in part.sequences], wants_logits)


class LlamaFile:
    """A GGUF model in memory, mapped from its file where the system supports it.

    Raises
    ------
    ModelError
        If llama.cpp cannot load the file.
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

    @cached_property
    def target(self) -> Target:
        """What adapters for this file must be like; raises `ModelError` if that is not known of its architecture."""
        heads, keys = llama_cpp.llama_model_n_head(self.handle), llama_cpp.llama_model_n_head_kv(self.handle)
        return Target(self.metadata("general.architecture"), int(heads), int(keys))

    def metadata(self, key: str) -> str:
        """Return a value of the file's metadata; empty if it has none."""
        size = FIRST_BUFFER
        while True:
            text = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), text, size)
            if length < size:
                return text.value.decode() if length >= 0 else ""
            size = length + 1

    def text(self, token: int) -> str:
        """Return a token's text in the vocabulary; empty for a negative id."""
        return llama_cpp.llama_vocab_get_text(self._vocabulary, token).decode() if token >= 0 else ""

    def tokenise(self, text: str) -> list[int]:
        """Return a text's token ids, without added ones; special tokens in the text are recognised."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), ids, len(ids), False, True)
        if count < 0:
            raise ModelError("llama.cpp cannot tokenise a prompt: the model's vocabulary is damaged")
        return list(ids[:count])

    def adapter(self, path: Path) -> Any:
        """Load a LoRA adapter for the model.

        Raises
        ------
        ModelError
            If the file is damaged, or belongs to another model.
        """
        handle = llama_cpp.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not handle:
            raise ModelError(f"the adapter {path} does not fit the base model, or is damaged: delete it")
        return handle


class LlamaContext:
    """A key-value cache over a model, for many sequences that may share cells.

    Parameters
    ----------
    threads
        Number of threads; 0 for one per processor.
    cells
        Number of tokens that the cache holds: 23 KB each, for a model of 30 layers with three key-value heads.
    """

    def __init__(self, model: LlamaFile, threads: int, cells: int) -> None:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = cells, BATCH, BATCH // 2
        settings.n_seq_max = settings.n_outputs_max = settings.n_outputs_max_per_seq = SEQUENCES
        settings.n_threads = settings.n_threads_batch = threads or processors()
        settings.kv_unified = True  # otherwise sequences cannot share cells
        self.model, self.cells, self._hook = model, cells, GraphHook(model.hidden)
        settings.cb_eval = self._hook.callback
        self.handle = llama_cpp.llama_init_from_model(model.handle, settings)
        if not self.handle:
            raise ModelError("llama.cpp cannot make its cache: there is not enough memory")
        weakref.finalize(self, llama_cpp.llama_free, self.handle)
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = int(llama_cpp.llama_n_batch(self.handle))  # llama.cpp aborts the process on a larger batch
        self.evaluated = 0

    def decode(self, tokens: Tokens, columns: NDArray[np.int64]) -> Floats:
        """Evaluate tokens, and return some columns of their logits.

        Parameters
        ----------
        columns
            Token ids of the logits to return.

        Returns
        -------
        array
            Logits behind the tokens that want them, shape (tokens.wants_logits.sum(), len(columns)).

        Raises
        ------
        ModelError
            If the tokens do not fit into the cache.
        """
        pieces = _pieces(tokens.wants_logits, self._batch, SEQUENCES)
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
        rows = int(tokens.wants_logits.sum())
        if not rows:
            return np.zeros((0, len(columns)), dtype=np.float32)
        logits = llama_cpp.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(logits, (rows, self.model.tokens))[:, columns]

    def share(self, source: int, target: int, stop: int = TO_END) -> None:
        """Let a sequence begin with the cells of another, up to position `stop`, without copying them."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, stop)

    def drop(self, sequence: int) -> None:
        """Remove a sequence from the cache; cells that no other sequence uses become free."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Empty the cache."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def adapt(self, adapter: Any) -> None:
        """Use a loaded adapter, or none. The caller must clear the cache, which the previous adapter computed."""
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(1.0)
        llama_cpp.llama_set_adapters_lora(self.handle, handles, 0 if adapter is None else 1, scales)

    @contextmanager
    def steered(self, vectors: Mapping[str, Sequence[Floats]]) -> Iterator[None]:
        """Add vectors to the residual stream of every token evaluated meanwhile, in units of the hidden state's norm.

        Parameters
        ----------
        vectors
            By name of a tensor of llama.cpp's graph, shape (hidden,) each.
        """
        self._hook.added.update({name.encode(): added for name, added in vectors.items()})
        try:
            yield
        finally:
            self._hook.added.clear()

    def read_tensor(self, tokens: Tokens, tensor: str) -> Floats:
        """Evaluate tokens up to a tensor of llama.cpp's graph, and return its rows, shape (rows, hidden).

        Later layers are not computed, so that the caller must drop these tokens' cells.
        """
        self._hook.wanted = tensor.encode()
        try:
            self.decode(tokens, np.zeros(0, dtype=np.int64))
            return np.concatenate([np.zeros((0, self.model.hidden), np.float32), *self._hook.read])
        finally:
            self._hook.wanted = b""
            self._hook.read.clear()


def as_batch(tokens: Tokens) -> tuple[Any, object]:
    """Return llama.cpp's struct of a batch, and the arrays that must live as long as it does."""
    counts = np.array([len(sequences) for sequences in tokens.sequences], dtype=np.int32)
    members = np.array([sequence for sequences in tokens.sequences for sequence in sequences], dtype=np.int32)
    starts = members.ctypes.data + 4 * (np.cumsum(counts, dtype=np.uint64) - counts.astype(np.uint64))
    ids, positions = (np.ascontiguousarray(array, dtype=np.int32) for array in (tokens.ids, tokens.positions))
    wants_logits = tokens.wants_logits.astype(np.int8)
    batch = llama_cpp.llama_batch(
        len(ids),
        _pointer(ids, ctypes.c_int32),
        None,
        _pointer(positions, ctypes.c_int32),
        _pointer(counts, ctypes.c_int32),
        _pointer(starts, ctypes.POINTER(ctypes.c_int32)),
        _pointer(wants_logits, ctypes.c_int8),
    )
    return batch, (counts, members, starts, ids, positions, wants_logits)


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pieces(wants_logits: NDArray[np.bool_], max_tokens: int, max_logits: int) -> list[tuple[int, int]]:
    """Cut a batch, in its order, into as few calls as llama.cpp's limits allow; returns start and stop of each."""
    pieces, start, logits = list[tuple[int, int]](), 0, 0
    for index, wanted in enumerate(wants_logits):
        if index - start == max_tokens or logits + int(wanted) > max_logits:
            pieces.append((start, index))
            start, logits = index, 0
        logits += int(wanted)
    return [*pieces, (start, len(wants_logits))] if len(wants_logits) else []


def _pointer(array: NDArray[Any], c_type: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(c_type))
