"""Child processes, mainly Flower's: environment, start, readiness, and termination of all descendants."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from ..errors import FedoelError

START_SECONDS = 180.0  # a busy or small machine imports Flower for more than a minute
STOP_SECONDS = 5.0
TAIL_LINES = 30
PR_SET_PDEATHSIG = 1


def flower_environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of Flower's commands: a separate home, no telemetry, no installation at run time."""
    settings = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Otherwise Flower installs the app's dependencies for every run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Flower finds its own commands on PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    return {**os.environ, **settings, **more}


def environment_of_children() -> dict[str, str]:
    """Return an environment in which Python finds the modules that this process finds, in the same order."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def start_process(
    command: list[str], environment: Mapping[str, str], folder: Path, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a new session; on Linux it is killed when this process dies.

    What it writes, such as Flower's database, only its owner may read.

    Parameters
    ----------
    command, environment
        Arguments and environment variables.
    folder
        Working directory.
    log
        File to append standard output and error to; None for a pipe.

    Raises
    ------
    FedoelError
        If the command is not installed.
    """
    try:
        with nullcontext(subprocess.PIPE) if log is None else log.open("ab") as output:
            return subprocess.Popen(
                command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd=folder, preexec_fn=_die_with_parent(), umask=0o077,
            )  # fmt: skip
    except FileNotFoundError as error:
        raise FedoelError(f"{command[0]} is not installed: pip install 'fedoel[flower]'") from error


def _die_with_parent() -> Callable[[], object] | None:
    """Return a `preexec_fn` that has the kernel kill the child when its parent dies: prctl(2), PR_SET_PDEATHSIG."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if log.exists() else ""


def free_ports(count: int) -> list[int]:
    """Return unused ports of the loopback interface."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [int(bound.getsockname()[1]) for bound in sockets]


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path, authority: Path | None = None) -> None:
    """Wait until a SuperLink responds to health checks.

    Raises
    ------
    FedoelError
        If it does not start; the message contains the end of its log.
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
    """End a process and all its descendants: Flower's simulation and Ray start sessions of their own.

    A second Ctrl-C, for which people are quick, waits until they have ended.
    """
    with undisturbed():
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    pids = [process.pid, *descendants(process.pid)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # reap it, so that it does not count as alive
            pids = [pid for pid in pids if _alive(pid)]
            if not pids:
                return
            time.sleep(0.1)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything left in the session that `start_process` made for it."""
    with undisturbed():
        process.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Raise a `KeyboardInterrupt` that comes in the block behind it: it must not leave half of what the block ends."""
    if threading.current_thread() is not threading.main_thread():  # in which handlers run, and no other
        yield
        return
    came = list[int]()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ends_a_session())}
    before = {number: handler for number, handler in handlers.items() if handler is signal.default_int_handler}
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Take SIGTERM, and SIGHUP unless it is ignored (`nohup`), for Ctrl-C: `KeyboardInterrupt` cleans up."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in _ends_a_session()}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, handler)


def _ends_a_session() -> list[signal.Signals]:
    """Return the signals by which a machine or a terminal ends what runs there, as far as the system has them."""
    return [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


def descendants(root: int) -> list[int]:
    """Return the process ids of all descendants; call it while their parents are alive."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    pids, queue = [], [root]
    while queue:
        found = children.get(queue.pop(), [])
        pids += found
        queue += found
    return pids


def _parents(proc: Path = Path("/proc")) -> dict[int, int]:
    """Return the parent of every process, as Linux says it in /proc, or else ``ps``."""
    parents = dict[int, int]()
    for status in proc.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has ended
            # The name, in brackets, may hold anything; behind it are the state and the parent.
            parents[int(status.parent.name)] = int(status.read_text(errors="replace").rpartition(")")[2].split()[1])
    if not parents:
        with suppress(OSError):  # there is no ps either
            listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
            parents = {int(pid): int(parent) for pid, parent in map(str.split, listing.stdout.splitlines())}
    return parents


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
