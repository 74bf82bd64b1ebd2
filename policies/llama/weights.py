"""The GGUF file that llama.cpp computes with: the base model's file, or a copy in another weight format, written once.

llama.cpp rounds activations to the format of the weights: to eight bits for quantised weights, to float16 for float16.
Probabilities from a quantised file therefore differ noticeably from the torch backend's, which dequantises it; those
from a float16 copy agree. The copy is exact, since a 4-bit weight times its scale fits into float16.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp

from ...protocol.config import WEIGHTS
from ...protocol.errors import ModelError
from ..model_files import draft_of
from .library import quiet

AS_THEY_ARE, Q8, HALF = WEIGHTS
_TYPES = {Q8: llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, HALF: llama_cpp.LLAMA_FTYPE_MOSTLY_F16}
COPY_FORMAT = 1


def weights_file(base: Path, digest: str, weights: str, cache: Path) -> Path:
    """Path of the GGUF file to compute with.

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
