"""What glibc keeps of freed memory, and how it is told to give it back; another C library is left alone."""

from __future__ import annotations

import ctypes
from typing import Any

M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 8 << 20  # bytes; where blocks of one megabyte are given back, the kernel clears pages for a third of the time


def return_free_memory() -> None:
    """Give back freed blocks that lie between live ones: `malloc_trim`.

    glibc keeps them, in a separate heap per thread. Caches of many sizes are freed in the threads of all simulated
    clients: without this call, a run of twenty clients holds gigabytes of free memory.
    """
    if trim := _function("malloc_trim"):
        trim(0)


def return_large_blocks_when_freed() -> None:
    """Let blocks of eight megabytes and more have memory of their own, given back when they are freed: `mallopt`.

    By itself, glibc comes to take blocks of up to 32 MB from the heap, in which tensors of all sizes leave holes.
    """
    if mallopt := _function("mallopt"):
        mallopt(M_MMAP_THRESHOLD, LARGE)


def _function(name: str) -> Any:
    """Return a function of the C library, or None if it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):
        return None
