"""A hook in llama.cpp's compute graph: reads tensors by name, and adds vectors to them.

llama.cpp's interface gives logits only, and control vectors without a scale per token. Its evaluation callback, with
which its own tools compute importance matrices and control vectors, can read any tensor, change it, and end the
computation there.
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


class GraphHook:
    """Which tensors of the compute graph to read, and which to change; at first none.

    Parameters
    ----------
    width
        Size of a token's hidden state.

    Attributes
    ----------
    added
        Vectors to add to each tensor, one after the other, in units of each token's norm; shape (width,) each.
    wanted
        Name of the tensor to read; the computation ends there.
    read
        The values that were read, one array of shape (T, width) per part of a batch.
    """

    def __init__(self, width: int) -> None:
        self.added: dict[bytes, Sequence[Floats]] = {}
        self.wanted, self.read = b"", list[Floats]()

        @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
        def on_tensor(tensor: int, asks: bool, data: Any) -> bool:
            """If llama.cpp asks, return whether to see a tensor; otherwise handle it, and return whether to go on."""
            if not (self.added or self.wanted):
                return not asks
            name = libggml.ggml_get_name(tensor)
            if name != self.wanted and name not in self.added:
                return not asks
            return True if asks else self._handle(tensor, name, width)

        self.callback = on_tensor

    def _handle(self, tensor: int, name: bytes, width: int) -> bool:
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
