"""Processes that begin with everything imported: a server imports a module once, and forks for each that is started.

A device answers each message in a process of its own, and importing Flower and the app takes such a process longer than
most answers do. Python's fork server (`multiprocessing`) has neither threads nor connections that a fork could harm.
Where it is not used, a process starts and imports anew, and does the same.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from typing import Protocol

FORKS = sys.platform == "linux"  # elsewhere, there is none, or libraries of the system may not be used behind a fork


class Ending(Protocol):
    """A process of which one can ask whether it has ended."""

    def poll(self) -> int | None:
        """Return its exit code, None as long as it runs."""
        ...


class _Forked:
    def __init__(self, module: str, arguments: Sequence[str], quiet: bool) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(module, list(arguments), quiet))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode


def import_for_processes(modules: Sequence[str]) -> None:
    """Start the server from which processes of these modules are forked; it imports them in the background."""
    if FORKS and modules:
        forkserver.set_forkserver_preload([*modules])
        forkserver.ensure_running()


def name_of(module: str) -> str:
    """Return the name that a forked process of this module has in the system's list, of 15 characters or fewer."""
    return f"fedoel {module.rpartition('.')[2]}"[:15]


def start_module(module: str, arguments: Sequence[str], quiet: bool = False) -> Ending:
    """Start a process that calls `main` of a module.

    Parameters
    ----------
    module
        Its full name. `main` reads its arguments from `sys.argv`.
    arguments
        For it, without the name in front of them.
    quiet
        Whether its output is thrown away.
    """
    if FORKS:
        return _Forked(module, arguments, quiet)
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _run(module: str, arguments: Sequence[str], quiet: bool) -> None:
    sys.argv = [module, *arguments]
    Path("/proc/self/comm").write_text(name_of(module))  # for `ps` and `top`, which would show the server's name
    if quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    import_module(module).main()
