"""The engine `ray`: the same apps through `flwr run` on Flower's simulation runtime, with clients as Ray actors."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError, FedoelError
from ..protocol.host.cache import cache_folder, expanded
from ..protocol.host.processes import flower_environment, free_ports, start_process, stop, tail, wait_until_healthy
from ..protocol.records.events import Event, Listener
from ..protocol.settings import shown
from ..server.events import LOG, follow
from ..server.operate.run_app import COMPLETED, Beginning, run_started, run_status, write_app
from .inprocess import whole_fleet
from .prompts import with_pack
from .summary import size

POLL_SECONDS = 0.5
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # the longest that Ray makes
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
CURRENT_CLUSTER = "ray_current_cluster"  # Ray's file with the address of the newest cluster of this machine
SESSION = 50e6  # bytes: some megabytes of logs for a run with hundreds of clients, and what they grow by
CONNECT_SECONDS = 3.0
STARTS = 3  # attempts to start a SuperLink


def check_ray() -> None:
    """Refuse an environment in which Ray does not start, whose own messages would be in a log that nobody sees.

    Raises
    ------
    ConfigError
        If the folder for temporary files has too long a name for Ray's sockets (unix(7)) or is full, or RAY_ADDRESS
        names no cluster that answers.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    folder = os.environ.get(variable, "/tmp")
    excess = len(os.fsencode(folder)) + len(SOCKET) - LONGEST_SOCKET
    if excess > 0:
        raise ConfigError(
            f"{variable} {folder!r} has a name that is {excess} bytes too long for Ray's sockets: set RAY_TMPDIR to a "
            f"folder with a name of at most {LONGEST_SOCKET - len(SOCKET)} bytes, such as /tmp"
        )
    check_room(folder, variable or "the folder for temporary files")
    check_address(os.environ.get("RAY_ADDRESS", ""), Path(folder) / "ray" / CURRENT_CLUSTER)


def check_room(folder: str, name: str) -> None:
    """Refuse a folder without room for what a Ray of our own writes before it starts; it says nothing of it itself."""
    if os.environ.get("RAY_ADDRESS", "") not in ("", "local") or not os.path.isdir(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < SESSION:
        raise ConfigError(
            f"{name} {folder!r} has {size(free)} free, and Ray takes {size(SESSION)} for its logs and sockets: make "
            "room there, or set RAY_TMPDIR to a folder of another file system"
        )


def check_address(address: str, current: Path) -> None:
    """Refuse a RAY_ADDRESS at which there is no cluster.

    Parameters
    ----------
    current
        Where `ray start` notes the address of the cluster that is meant by ``auto``.

    Raises
    ------
    ConfigError
        If it is no address, or nobody answers there.
    """
    if address in ("", "local"):
        return
    named = shown(address)
    if address == "auto":
        try:
            address = current.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"RAY_ADDRESS is 'auto', and `ray start` has started no cluster here ({current} cannot be read): start "
                "one, set RAY_ADDRESS to the HOST:PORT of another, or unset it"
            ) from error
        named = f"'auto', which is {shown(address)}"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()):
        raise ConfigError(
            f"RAY_ADDRESS is {named}, which is no address of a Ray cluster: set it to HOST:PORT, or to 'auto' "
            "for the cluster that `ray start` has started here, or unset it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"RAY_ADDRESS is {named}, where no Ray cluster answers ({error}): start it, or unset RAY_ADDRESS"
        ) from error


def run_ray(config: RunConfig, listener: Listener | None = None) -> None:
    """Run all cycles of a run on Flower's simulation runtime.

    Parameters
    ----------
    config
        The run's configuration. `out` must be set: the server is another process that writes its results there.
    listener
        Called with every event in the run's event log.

    Raises
    ------
    ConfigError
        If `out` is empty.
    FedoelError
        If Flower reports that the run did not complete; with the end of Flower's log.
    """
    if not config.out:
        raise ConfigError("the ray engine needs 'out': the server is another process that writes its results there")
    out = expanded(config.out).resolve()
    cache = str(expanded(config.cache).resolve()) if config.cache else ""
    config = replace(whole_fleet(config), out=str(out), cache=cache)
    config = with_pack(config, cache_folder(config))
    with tempfile.TemporaryDirectory(prefix="fedoel-ray-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_app(folder / "app", config)
        events = follow(out / LOG)
        with superlink(folder, config.policy.threads) as (environment, superlink_log):
            log = _flwr_run(folder, config.clients, environment, events, listener)
            # `flwr run` exits with 0 even if the run failed.
            status = run_status(run_started(log), "local", environment)
            if status != COMPLETED:
                raise FedoelError(
                    f"the run is '{status}'; the end of Flower's log:\n{tail(log)}\n{tail(superlink_log)}"
                )
            _deliver(events, listener)


@contextmanager
def superlink(home: Path, threads: int) -> Iterator[tuple[Mapping[str, str], Path]]:
    """Run a SuperLink in simulation mode; on exit, stop it and all its child processes.

    `flwr run` would start a SuperLink in the background and leave it running. It uses one that already listens on its
    port. This one has its own folder and ports, and no telemetry.

    Parameters
    ----------
    home
        Folder for all files that Flower writes.
    threads
        Number of threads of each worker's numerical libraries; 0 leaves the choice to Ray.

    Yields
    ------
    environment, log
        The environment for `flwr` commands that use it, and its log file.

    Raises
    ------
    FedoelError
        If the SuperLink does not start.
    """
    log = home / "superlink.log"
    process, environment = _start_superlink(home, threads, log)
    try:
        yield environment, log
    finally:
        stop(process)


def _start_superlink(home: Path, threads: int, log: Path) -> tuple[subprocess.Popen[bytes], Mapping[str, str]]:
    """Start a SuperLink, on other ports if it ends at once: ports that were free may have been taken meanwhile."""
    attempts = STARTS
    while True:
        attempts -= 1
        port, control = free_ports(2)
        variables = {
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
            "FLWR_LOCAL_CONTROL_API_PORT": str(control),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Otherwise Ray would join whatever cluster `ray start` has left a note of on this machine.
            "RAY_ADDRESS": os.environ.get("RAY_ADDRESS") or "local",
        }
        if threads:
            variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment = flower_environment(home, **variables)
        command = [
            "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1",
            "--port", str(port), "--control-api-address", f"127.0.0.1:{control}",
        ]  # fmt: skip
        process = start_process(command, environment, home, log)
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
        except BaseException as error:
            ended = process.poll() is not None
            stop(process)
            if not (isinstance(error, FedoelError) and ended and attempts):
                raise
        else:
            return process, environment


def _deliver(events: Iterator[Event | None], listener: Listener | None) -> bool:
    """Tell the listener what has come; return whether there was any event."""
    some = False
    while (event := next(events)) is not None:
        some = True
        if listener is not None:
            listener(event)
    return some


def federation_of(clients: int) -> str:
    """Return Flower's federation configuration: one processor a client, of this machine or of Ray's cluster."""
    federation = f"num-supernodes={clients} client-resources-num-cpus=1 client-resources-num-gpus=0"
    if os.environ.get("RAY_ADDRESS"):  # Ray refuses a number of processors for a cluster that runs
        return federation
    return f"{federation} init-args-num-cpus={os.cpu_count() or 1}"


def _flwr_run(
    folder: Path,
    clients: int,
    environment: Mapping[str, str],
    events: Iterator[Event | None],
    listener: Listener | None,
) -> Path:
    """Run the app to its end, and return the file with the output of `flwr run`."""
    command = ["flwr", "run", str(folder / "app"), "local", "--stream", "--federation-config", federation_of(clients)]
    log = folder / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder
        )
    beginning = Beginning(log, "local", environment)
    try:
        while process.poll() is None:
            beginning.begun |= _deliver(events, listener)
            beginning.check()
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    return log
