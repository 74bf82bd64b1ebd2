"""What a machine has to offer: memory that is free, as far as the system and a container's limits say it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

MEMORY = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
MEGABYTE = 1e6


def free_memory(memory: Path = MEMORY, cgroup: Path = CGROUP) -> float | None:
    """Return how many megabytes this process may still take without swapping; None if the system does not say it.

    Parameters
    ----------
    memory, cgroup
        Where Linux reports the machine's memory, and the limits of a container (control groups, version 2).
    """
    free = list[float]()
    with suppress(OSError, ValueError, IndexError):
        for line in memory.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024 / MEGABYTE)
    with suppress(OSError, ValueError):  # "max" is no number
        limit, taken = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free.append((limit - taken) / MEGABYTE)
    return min(free, default=None)
