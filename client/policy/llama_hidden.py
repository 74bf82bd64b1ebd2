"""Hidden states out of the middle of a llama.cpp model: what the steering codec compares.

llama.cpp gives logits and last hidden states. A callback on its graph, the one that its own tools for importance
matrices and control vectors use, reads the output of one layer and stops there, so that the layers above cost nothing.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from .llama_library import LlamaContext, LlamaFile, Tokens

OUTPUT = "l_out-{}"  # llama.cpp's name of what comes out of a layer
libggml.ggml_get_name.argtypes, libggml.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
libggml.ggml_nbytes.argtypes, libggml.ggml_nbytes.restype = [ctypes.c_void_p], ctypes.c_size_t
libggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
libggml.ggml_backend_tensor_get.restype = None


class HiddenStates:
    """A context of its own that reads hidden states below a layer, and leaves logits alone.

    Parameters
    ----------
    layer
        How many layers lie below what is read, at least 1.
    """

    def __init__(self, model: LlamaFile, threads: int, cells: int, layer: int) -> None:
        name, hidden, self._read = OUTPUT.format(layer - 1).encode(), model.hidden, list[NDArray[np.float32]]()

        @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
        def watch(tensor: int, asked: bool, data: Any) -> bool:
            if libggml.ggml_get_name(tensor) != name:
                return not asked
            if not asked:
                states = np.empty((libggml.ggml_nbytes(tensor) // (4 * hidden), hidden), dtype=np.float32)
                libggml.ggml_backend_tensor_get(tensor, states.ctypes.data, 0, states.nbytes)
                self._read.append(states)
            return asked

        self.context = LlamaContext(model, threads, cells, watch)

    def states(self, tokens: Tokens) -> NDArray[np.float32]:
        """Evaluate tokens up to the layer, and return their hidden states, shape (T, hidden)."""
        self._read.clear()
        self.context.decode(tokens, np.zeros(0, dtype=np.int64))
        return np.concatenate(self._read)
