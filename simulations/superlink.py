"""A SuperLink of our own for one simulated run: own folder, own ports, no telemetry, gone at the end.

`flwr run` would start one in the background and leave it there. It uses a SuperLink that already answers on its port,
so we start it and keep hold of the process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..protocol.errors import FedoelError

START_SECONDS = 60.0
STOP_SECONDS = 5.0
TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class SuperLink:
    """A running SuperLink: the environment for `flwr` commands that should use it, and its log."""

    environment: Mapping[str, str]
    log: Path

    def tail(self) -> str:
        """Return the end of the log."""
        return tail(self.log)


@contextmanager
def superlink(home: Path, threads: int) -> Iterator[SuperLink]:
    """Start a SuperLink in simulation mode, and stop it and all that it started on the way out.

    Parameters
    ----------
    home
        Folder for everything that Flower writes.
    threads
        Threads of each worker's numerical libraries; 0 leaves them to Ray, which gives each its share.

    Raises
    ------
    FedoelError
        If it does not start.
    """
    port, control = _free_ports(2)
    log = home / "superlink.log"
    environment = _environment(home, port, control, threads)
    command = [
        "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1",
        "--port", str(port), "--control-api-address", f"127.0.0.1:{control}",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            cwd=home,
        )  # fmt: skip
    try:
        _wait_until_healthy(process, port, log)
        yield SuperLink(environment, log)
    finally:
        _stop(process)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if log.exists() else ""


def _environment(home: Path, port: int, control: int, threads: int) -> dict[str, str]:
    chosen = {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Flower would install the app's dependencies anew for every run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Flower starts its own commands by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if threads:
        chosen |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**os.environ, **chosen}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise FedoelError(f"Flower's SuperLink did not start; the end of its log:\n{tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it and everything below it: Flower's simulation runs in a session of its own, and Ray below that."""
    family = [process.pid, *_descendants(process.pid)]
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


def _descendants(root: int) -> list[int]:
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
