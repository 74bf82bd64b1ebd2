"""What computes the server's part of a run: processor, threads, precision, versions and commit, for the summary."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..protocol.config import PolicyConfig
from ..protocol.errors import ConfigError
from ..protocol.host.machine import installed_version
from ..protocol.records.summary import Machine
from .summary import NAME, read_summary

LIBRARIES = (
    "fedoel", "numpy", "flwr", "cryptography", "torch", "transformers", "peft", "llama-cpp-python", "textworld",
    "dp-accounting",
)  # fmt: skip
INSTRUCTIONS = {"avx512f": "AVX512", "avx2": "AVX2", "asimd": "NEON"}  # Linux's names, widest first
PROCESSOR = Path("/proc/cpuinfo")
GIT_SECONDS = 5.0


def machines_of(run: Path, policy: PolicyConfig) -> tuple[Machine, ...]:
    """Return the machines that a run's summary names, and this one behind them if it is another one.

    The model has been loaded: what torch has chosen is known.
    """
    before: tuple[Machine, ...] = ()
    if (run / NAME).exists():
        with suppress(ConfigError):  # a damaged summary is written anew
            before = read_summary(run).machines or ()
    this = this_machine(policy)
    return before if before and before[-1] == this else (*before, this)


def this_machine(policy: PolicyConfig) -> Machine:
    """Describe this machine and what is installed on it."""
    instructions, threads, precision = _computing(policy)
    return Machine(
        processor=_processor(), instructions=instructions, threads=threads, precision=precision, versions=_versions(),
        commit=_commit(Path(__file__).resolve().parent),
    )  # fmt: skip


def _computing(policy: PolicyConfig) -> tuple[str, int, str]:
    """Return instructions, threads and precision."""
    if policy.backend == "torch" and "torch" in sys.modules:
        import torch

        from ..policies.torch.base import pick_device, pick_precision

        precision = pick_precision(policy.precision, pick_device(policy.device))
        return torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), precision
    threads = 1 if policy.backend == "tactics" else policy.threads or len(os.sched_getaffinity(0))
    return _instructions(), threads, ""


def _processor(information: Path = PROCESSOR) -> str:
    return _line(information, "model name") or platform.processor() or platform.machine()


def _instructions(information: Path = PROCESSOR) -> str:
    flags = (_line(information, "flags") or _line(information, "Features")).split()
    return next((name for flag, name in INSTRUCTIONS.items() if flag in flags), "")


def _line(information: Path, name: str) -> str:
    """Return what Linux says of the first processor under a name; empty if it says nothing."""
    with suppress(OSError, UnicodeDecodeError):
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _versions() -> Mapping[str, str]:
    installed = {library: installed_version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), **{name: number for name, number in installed.items() if number}}


def _commit(source: Path) -> str:
    """Ask git for the commit of the source; empty without git, or where this file is not in a repository of its own.

    A virtual environment may lie in a repository of something else.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(source), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return ""
