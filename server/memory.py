"""Memory that is free and yet not given back: what a phase caches leaves holes between what stays."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return free memory to the operating system, where the C library keeps it (glibc); elsewhere do nothing.

    Scenes of every size come and go, and in one process they do so in the threads of all clients, each with a heap of
    its own: without this, a run of twenty clients keeps gigabytes that nobody uses.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
