"""Memory that was freed is given back to the operating system where the C library is glibc."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.host.memory import return_free_memory, return_large_blocks_when_freed
from fedoel.protocol.host.processes import environment_of_children

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps free memory for us to undo")
HOLES = """\
import sys
from pathlib import Path
import numpy as np
from fedoel.protocol.host.memory import return_large_blocks_when_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "given back":
    return_large_blocks_when_freed()
large = np.ones(30 << 20, np.uint8)
del large  # from here on, glibc takes blocks of up to 30 MB from the heap, unless it was told not to
blocks = [np.ones(9 << 20, np.uint8) for _ in range(40)]
before = resident()
blocks = blocks[::2]
print(before - resident())
"""


@only_glibc
def test_holes_between_what_stays_are_given_back() -> None:
    # Too small for memory of their own from the operating system: every second block goes, and leaves a hole.
    blocks = [np.ones(12_000, dtype=np.uint8) for _ in range(20_000)]
    kept = blocks[::2]
    del blocks
    before = resident()
    return_free_memory()
    assert resident() < before - 0.25 * sum(block.nbytes for block in kept)


@only_glibc
@pytest.mark.parametrize(("how", "freed"), [("given back", True), ("kept", False)])
def test_large_blocks_are_given_back_when_they_are_freed(how: str, freed: bool) -> None:
    command = [sys.executable, "-c", HOLES, how]
    done = subprocess.run(command, env=environment_of_children(), capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 0.9 * 20 * (9 << 20)) is freed


def resident() -> int:
    """Bytes of memory that this process has."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(fields["VmRSS"].split()[0])


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Any) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", none)
    return_free_memory()
    return_large_blocks_when_freed()
