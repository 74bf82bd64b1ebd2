"""What a machine has to offer, and what a process has taken of it, as far as the system says: memory and packages."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
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


def installed_version(package: str) -> str:
    """Return the version of an installed package; empty if it is not installed, or pip was interrupted at it.

    Then its folder of metadata may be there without them, for which Python returns None instead of an error.
    """
    with suppress(PackageNotFoundError, KeyError, ValueError):
        return version(package) or ""
    return ""


def machine_memory() -> float | None:
    """Return how many gigabytes the machine has, a container's machine included; None if the system does not say it."""
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return None


def peak_memory() -> float | None:
    """Return the most megabytes that this process has had in memory; None if the system does not say it."""
    with suppress(ImportError):  # not every system has this module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
    return None
