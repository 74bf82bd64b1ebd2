"""Processes that begin with everything imported: a server imports a module once, and forks for each that is started.

A device answers each message in a process of its own, and importing Flower and the app takes such a process longer than
most answers do. Python's fork server (`multiprocessing`) has neither threads nor connections that a fork could harm.
Where there is none, a process starts and imports anew, and does the same. What is registered with `atexit` is not
called in a process that was forked.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from typing import Protocol

from ..errors import FedoelError

FORKS = sys.platform == "linux"  # elsewhere, there is none, or libraries of the system may not be used behind a fork


class Running(Protocol):
    """A process that was started."""

    def poll(self) -> int | None:
        """Return its exit code, None as long as it runs."""
        ...


class Forked:
    """A process of the fork server. Python waits for it at the end of the process that has started it."""

    def __init__(self, module: str, arguments: Sequence[str], quiet: bool) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(module, list(arguments), quiet))
        self._process.start()

    def poll(self) -> int | None:
        """Return its exit code, None as long as it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def import_for_processes(modules: Sequence[str]) -> None:
    """Start the server from which processes of these modules are forked; it imports them in the background.

    Where it cannot be started, such as where the path of a temporary folder is too long for a socket, there is none.
    """
    if FORKS and modules:
        with suppress(OSError):
            forkserver.set_forkserver_preload([*modules])
            forkserver.ensure_running()


def name_of(module: str) -> str:
    """Return the name that a forked process of this module has in the system's list, of 15 characters or fewer."""
    return f"fedoel {module.rpartition('.')[2]}"[:15]


def start_module(module: str, arguments: Sequence[str], quiet: bool = False) -> Running:
    """Start a process that calls `main` of a module.

    Parameters
    ----------
    module
        Its full name. `main` reads its arguments from `sys.argv`.
    arguments
        For it, without the name in front of them.
    quiet
        Whether its output is thrown away.

    Raises
    ------
    FedoelError
        If the fork server ended when it was asked, so that the process may have started, and may have not.
    """
    if FORKS:
        try:
            return Forked(module, arguments, quiet)
        except EOFError as error:
            raise FedoelError("what starts the processes of this device has ended; it is started again") from error
        except OSError:  # it cannot be reached: it was killed, or somebody has deleted its socket
            pass
    return start_command([sys.executable, "-P", "-m", module, *arguments], quiet)


def start_command(command: Sequence[str], quiet: bool = False) -> Running:
    """Start a process without an input; `quiet` as for `start_module`."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _run(module: str, arguments: Sequence[str], quiet: bool) -> None:
    sys.argv = [module, *arguments]
    with suppress(OSError):  # for `ps` and `top`, which would show the server's name; not every system lets it be set
        Path("/proc/self/comm").write_text(name_of(module))
    if quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    import_module(module).main()
