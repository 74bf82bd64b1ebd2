"""Return freed heap memory to the operating system."""

from __future__ import annotations

import ctypes


def return_free_memory() -> None:
    """Call glibc's `malloc_trim`; do nothing with another C library.

    glibc keeps freed blocks that lie between live ones, in a separate heap per thread. Caches of many sizes are freed
    in the threads of all simulated clients: without this call, a run of twenty clients holds gigabytes of free memory.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
