"""What a simulated run takes at least, so that one that does not fit its machine is refused before it starts.

The figures were measured with a thousand to a hundred thousand clients without a language model. Of a language model,
only the size of its file is known before it is loaded: every process holds as much at least.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..policies.model_files import find_model
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.host.machine import MEGABYTE, free_memory
from .summary import size

CLIENT = 6_000  # bytes of a client's context, of its message and of the reply, without numbers
COPIES = 12  # bytes of memory for each number of a client's vector: as it was received, as float32, and stacked
RECORD = 40_000  # bytes that a cycle leaves on disk, without vectors
KEPT = 24  # bytes on disk for each number of an aggregate: itself, and the running sum
LIBRARIES = 350e6  # bytes of a process with torch or llama.cpp, before it loads a model
IN_MEMORY = 6  # a model in single precision to its file in four bits; less for other files
TRAINING = 700e6  # bytes of activations, of scenes and of what is kept of prompts, as `quick` has them in each process
MANY_CLIENTS = 500  # for fewer without a language model, a second process takes longer to start than it saves
WITH_MODEL = ("torch", "llama")


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of memory and of disk."""

    memory: float
    disk: float


def processes_of(config: RunConfig, asked: int | None = None) -> int:
    """Return how many processes compute a run: as many as were asked for, or by default one per processor.

    The default is less where free memory holds fewer copies of the model, and one where a GPU computes it, or where the
    work is done before a second process has started.
    """
    most = processors()
    if asked or most == 1:
        return asked or 1
    if config.policy.backend not in WITH_MODEL:
        return most if config.clients >= MANY_CLIENTS else 1
    if config.policy.backend == "torch":
        from ..policies.torch.base import pick_device

        if pick_device(config.policy.device).type != "cpu":
            return 1
    free = free_memory()
    if free is None:
        return most
    return max(1, min(most, int(free * MEGABYTE / (LIBRARIES + IN_MEMORY * _model_bytes(config) + TRAINING))))


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs_of(config: RunConfig, vector: int, processes: int = 1) -> Needs:
    """Return what a run takes at least.

    Parameters
    ----------
    vector
        Numbers of a client's experience vector.
    processes
        How many processes hold the model.
    """
    cohort = config.clients * config.strategy.fraction_train / config.strategy.exchanges
    memory = config.clients * CLIENT + cohort * COPIES * vector
    if config.policy.backend in WITH_MODEL:
        memory += processes * (LIBRARIES + _model_bytes(config))
    return Needs(memory, config.cycles * (RECORD + config.strategy.exchanges * KEPT * vector))


def check_needs(config: RunConfig, vector: int, processes: int = 1) -> None:
    """Refuse a run that does not fit.

    Raises
    ------
    ConfigError
        With the estimate, what there is, and what to do.
    """
    needs, free = needs_of(config, vector, processes), free_memory()
    if free is not None and needs.memory > free * MEGABYTE:
        several = f" in {processes} processes" if processes > 1 else ""
        remedy = "fewer clients, several exchanges, or a smaller model"
        raise ConfigError(
            f"{config.clients:,} clients{several} take at least {size(needs.memory)} of memory, and "
            f"{size(free * MEGABYTE)} are free: take {'fewer --processes, ' if several else ''}{remedy}"
        )
    room = shutil.disk_usage(_existing(Path(config.out))).free
    if needs.disk > room:
        raise ConfigError(
            f"{config.cycles:,} cycles take at least {size(needs.disk)} of disk, and {size(room)} are free in "
            f"{config.out}: take fewer cycles, or another folder with --out"
        )


def _model_bytes(config: RunConfig) -> int:
    """Return the size of the base model's files."""
    path = find_model(config.policy.base)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _existing(path: Path) -> Path:
    """Return a folder, or the first one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
