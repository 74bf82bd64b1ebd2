"""A SuperLink of our own for one simulated run: own folder, own ports, no telemetry, gone at the end.

`flwr run` would start one in the background and leave it there. It uses a SuperLink that already answers on its port,
so we start it and keep hold of the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..protocol.host.processes import flower_environment, free_ports, start_process, stop, tail, wait_until_healthy


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
    port, control = free_ports(2)
    log, environment = home / "superlink.log", _environment(home, port, control, threads)
    command = [
        "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1",
        "--port", str(port), "--control-api-address", f"127.0.0.1:{control}",
    ]  # fmt: skip
    process = start_process(command, environment, home, log)
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
        yield SuperLink(environment, log)
    finally:
        stop(process)


def _environment(home: Path, port: int, control: int, threads: int) -> dict[str, str]:
    chosen = {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if threads:
        chosen |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return flower_environment(home, **chosen)
