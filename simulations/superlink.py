"""A temporary SuperLink for one simulated run, with its own folder and ports, and without telemetry.

`flwr run` would start a SuperLink in the background and leave it running. It uses one that already listens on its port,
so that one is started here and stopped at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..protocol.host.processes import flower_environment, free_ports, start_process, stop, tail, wait_until_healthy


@dataclass(frozen=True, slots=True)
class SuperLink:
    """A running SuperLink: the environment for `flwr` commands that use it, and its log file."""

    environment: Mapping[str, str]
    log: Path

    def tail(self) -> str:
        """Return the end of the log."""
        return tail(self.log)


@contextmanager
def superlink(home: Path, threads: int) -> Iterator[SuperLink]:
    """Run a SuperLink in simulation mode; on exit, stop it and all its child processes.

    Parameters
    ----------
    home
        Folder for all files that Flower writes.
    threads
        Number of threads of each worker's numerical libraries; 0 leaves the choice to Ray.

    Raises
    ------
    FedoelError
        If the SuperLink does not start.
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
    variables = {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if threads:
        variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return flower_environment(home, **variables)
