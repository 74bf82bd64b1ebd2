"""A hand in llama.cpp's graph while it is computed: reads tensors by name, and adds to them.

llama.cpp gives logits, and its control vectors are the same at every token. A callback, the one with which its own
tools make importance matrices and control vectors, reads any tensor, may change it, and may stop there, so that what
comes behind it costs nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_TENSOR, _SIZE = ctypes.c_void_p, ctypes.c_size_t
libggml.ggml_get_name.argtypes, libggml.ggml_get_name.restype = [_TENSOR], ctypes.c_char_p
libggml.ggml_nbytes.argtypes, libggml.ggml_nbytes.restype = [_TENSOR], _SIZE
for _copy in (libggml.ggml_backend_tensor_get, libggml.ggml_backend_tensor_set):
    _copy.argtypes, _copy.restype = [_TENSOR, ctypes.c_void_p, _SIZE, _SIZE], None


class Watch:
    """What to do with which tensors of a graph; at first nothing.

    Parameters
    ----------
    width
        Numbers a token.

    Attributes
    ----------
    added
        Vectors to add to tensors one after the other, in lengths of what stands at a token, each of shape (width,).
    wanted
        The tensor to read; the graph stops behind it.
    read
        What was read, one array of shape (T, width) for each part of a batch.
    """

    def __init__(self, width: int) -> None:
        self.added: dict[bytes, Sequence[Floats]] = {}
        self.wanted, self.read = b"", list[Floats]()

        @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
        def look(tensor: int, asked: bool, data: Any) -> bool:
            """Say whether a tensor is of interest, if asked; else see it, and say whether to go on."""
            if not (self.added or self.wanted):
                return not asked
            name = libggml.ggml_get_name(tensor)
            if name != self.wanted and name not in self.added:
                return not asked
            return True if asked else self._see(tensor, name, width)

        self.callback = look

    def _see(self, tensor: int, name: bytes, width: int) -> bool:
        rows = np.empty((libggml.ggml_nbytes(tensor) // (4 * width), width), dtype=np.float32)
        libggml.ggml_backend_tensor_get(tensor, rows.ctypes.data, 0, rows.nbytes)
        if name in self.added:
            for vector in self.added[name]:
                rows += np.linalg.norm(rows, axis=1, keepdims=True) * vector
            libggml.ggml_backend_tensor_set(tensor, rows.ctypes.data, 0, rows.nbytes)
        if name != self.wanted:
            return True
        self.read.append(rows)
        return False
