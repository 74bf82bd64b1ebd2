"""Processes of Flower's that we start: their environment, when they are ready, and how all of them end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from ..errors import FedoelError

START_SECONDS = 60.0
STOP_SECONDS = 5.0
TAIL_LINES = 30
PR_SET_PDEATHSIG = 1


def flower_environment(home: Path, **more: str) -> dict[str, str]:
    """Environment for Flower's commands: a home of its own, no telemetry, and nothing that is installed by the way."""
    chosen = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Flower would install the app's dependencies anew for every run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Flower starts its own commands by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    return {**os.environ, **chosen, **more}


def start_process(
    command: list[str], environment: Mapping[str, str], folder: Path, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own; on Linux it is told to end when we die, whatever kills us.

    Parameters
    ----------
    folder
        Where it works.
    log
        At the end of which everything goes that it says; None for a pipe.

    Raises
    ------
    FedoelError
        If there is no such command.
    """
    try:
        with nullcontext(subprocess.PIPE) if log is None else log.open("ab") as output:
            return subprocess.Popen(
                command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd=folder, preexec_fn=_ending_with_us(),
            )  # fmt: skip
    except FileNotFoundError as error:
        raise FedoelError(f"{command[0]} is not installed: pip install 'fedoel[flower]'") from error


def _ending_with_us() -> Callable[[], object] | None:
    """Return what a child has to do for that before it becomes another program: see prctl(2)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if log.exists() else ""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path, authority: Path | None = None) -> None:
    """Wait until a SuperLink answers.

    Raises
    ------
    FedoelError
        If it does not start, with the end of its log.
    """
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2, context=context):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise FedoelError(f"Flower's SuperLink did not start; the end of its log:\n{tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and everything below it: Flower's simulation runs in a session of its own, and Ray below that."""
    family = [process.pid, *descendants(process.pid)]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # reaps it, so that it does not look alive
            family = [pid for pid in family if _alive(pid)]
            if not family:
                return
            time.sleep(0.1)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End what a process that is over, or should be, has left in the session that was made for it."""
    process.kill()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(root: int) -> list[int]:
    """Return children, grandchildren and so on; must be asked while the parents still live."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    children: dict[int, list[int]] = {}
    for pid, parent in (map(int, line.split()) for line in listing.splitlines()):
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
