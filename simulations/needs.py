"""What a simulated run takes at least, so that one that does not fit its machine is refused before it starts.

The figures were measured with a thousand to a hundred thousand clients without a language model. What a language model
takes comes on top, and is not known before it is loaded.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.host.machine import MEGABYTE, free_memory
from .summary import size

CLIENT = 6_000  # bytes of a client's context, of its message and of the reply, without numbers
COPIES = 12  # bytes of memory for each number of a client's vector: as it was received, as float32, and stacked
RECORD = 40_000  # bytes that a cycle leaves on disk, without vectors
KEPT = 24  # bytes on disk for each number of an aggregate: itself, and the running sum


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of memory and of disk."""

    memory: float
    disk: float


def needs_of(config: RunConfig, vector: int) -> Needs:
    """Return what a run takes at least.

    Parameters
    ----------
    vector
        Numbers of a client's experience vector.
    """
    cohort = config.clients * config.strategy.fraction_train / config.strategy.exchanges
    memory = config.clients * CLIENT + cohort * COPIES * vector
    return Needs(memory, config.cycles * (RECORD + config.strategy.exchanges * KEPT * vector))


def check_needs(config: RunConfig, vector: int) -> None:
    """Refuse a run that does not fit.

    Raises
    ------
    ConfigError
        With the estimate, what there is, and what to do.
    """
    needs, free = needs_of(config, vector), free_memory()
    if free is not None and needs.memory > free * MEGABYTE:
        raise ConfigError(
            f"{config.clients:,} clients take at least {size(needs.memory)} of memory, and {size(free * MEGABYTE)} are "
            "free: take fewer clients, or several exchanges"
        )
    room = shutil.disk_usage(_existing(Path(config.out))).free
    if needs.disk > room:
        raise ConfigError(
            f"{config.cycles:,} cycles take at least {size(needs.disk)} of disk, and {size(room)} are free in "
            f"{config.out}: take fewer cycles, or another folder with --out"
        )


def _existing(path: Path) -> Path:
    """Return a folder, or the first one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
