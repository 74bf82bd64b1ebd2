from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.server.cycle.phases import return_free_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps free memory in a way we can undo")
def test_holes_between_what_stays_are_given_back() -> None:
    # Too small for memory of their own from the operating system: every second block goes, and leaves a hole.
    blocks = [np.ones(12_000, dtype=np.uint8) for _ in range(20_000)]
    kept = blocks[::2]
    del blocks
    before = resident()
    return_free_memory()
    assert resident() < before - 0.25 * sum(block.nbytes for block in kept)


def resident() -> int:
    """Bytes of memory that this process has."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(fields["VmRSS"].split()[0])


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Any) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", none)
    return_free_memory()
