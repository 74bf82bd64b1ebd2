"""The second engine: the same apps through `flwr run` on Flower's simulation runtime, with clients as Ray actors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..protocol.config import RunConfig, Scalar
from ..protocol.errors import ConfigError, FedoelError
from .inprocess import Listener, whole_fleet
from .superlink import SuperLink, superlink, tail

POLL_SECONDS = 0.5
EVENTS = "events.jsonl"
STARTED = re.compile(r"started run (\d+)")
APP = """\
[project]
name = "fedoel-run"
version = "1.0.0"
description = "One simulated run of fedoel"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedoel"

[tool.flwr.app.components]
serverapp = "fedoel.server.app:app"
clientapp = "fedoel.client.app:app"

[tool.flwr.app.config]
"""


def run_ray(config: RunConfig, listener: Listener | None = None) -> None:
    """Run every cycle of a run through Flower's simulation runtime.

    Parameters
    ----------
    config
        The run. It needs `out`, since the server is another process: what it writes there is the result.
    listener
        Called with every event that appears in the run's log of events.

    Raises
    ------
    ConfigError
        If `out` is empty.
    FedoelError
        If Flower says that the run did not complete, with the end of its log.
    """
    if not config.out:
        raise ConfigError("the ray engine needs 'out': the server is another process and has to write somewhere")
    out = Path(config.out).expanduser().resolve()
    cache = str(Path(config.cache).expanduser().resolve()) if config.cache else ""
    config = replace(whole_fleet(config), out=str(out), cache=cache)
    with tempfile.TemporaryDirectory(prefix="fedoel-ray-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_app(folder / "app", config)
        events = follow(out / EVENTS)
        with superlink(folder, config.policy.threads) as link:
            log = _flwr_run(folder, config.clients, link, events, listener)
            _check_completed(log, link)
            _deliver(events, listener)


def write_app(folder: Path, config: RunConfig) -> None:
    """Write a Flower app that names the installed components and holds this run's settings as its defaults."""
    folder.mkdir(parents=True)
    settings = "\n".join(f"{key} = {_toml(value)}" for key, value in config.to_flat().items())
    (folder / "pyproject.toml").write_text(f"{APP}{settings}\n", encoding="utf-8")


def follow(file: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the events that are appended to a file from now on, and None whenever there are no more yet."""
    position, rest = file.stat().st_size if file.exists() else 0, b""
    while True:
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(position)
                *lines, rest = (rest + stream.read()).split(b"\n")
                position = stream.tell()
            for line in lines:
                yield json.loads(line)
        yield None


def _deliver(events: Iterator[dict[str, Any] | None], listener: Listener | None) -> None:
    while (event := next(events)) is not None:
        if listener is not None:
            listener(event)


def _flwr_run(
    folder: Path, clients: int, link: SuperLink, events: Iterator[dict[str, Any] | None], listener: Listener | None
) -> Path:
    """Run the app to its end and return what `flwr run` printed."""
    federation = (
        f"num-supernodes={clients} client-resources-num-cpus=1 client-resources-num-gpus=0 "
        f"init-args-num-cpus={os.cpu_count() or 1}"
    )
    command = ["flwr", "run", str(folder / "app"), "local", "--stream", "--federation-config", federation]
    log = folder / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=link.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder
        )
    try:
        while process.poll() is None:
            _deliver(events, listener)
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    return log


def _check_completed(log: Path, link: SuperLink) -> None:
    """Ask the SuperLink how the run ended: `flwr run` exits with 0 whatever happened.

    Raises
    ------
    FedoelError
        If it did not complete.
    """
    found = STARTED.search(log.read_text(errors="replace"))
    status = _status(found[1], link) if found else "not started"
    if status != "finished:completed":
        raise FedoelError(f"the run is '{status}'; the end of Flower's log:\n{tail(log)}\n{link.tail()}")


def _status(run: str, link: SuperLink) -> str:
    command = ["flwr", "ls", "local", "--run-id", run, "--format", "json"]
    answer = subprocess.run(command, env=link.environment, capture_output=True, text=True, check=False)
    try:
        return str(json.loads(answer.stdout)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError):
        return f"unknown: {answer.stdout[-500:]}{answer.stderr[-500:]}"


def _toml(value: Scalar) -> str:
    """Write a scalar; JSON's strings are TOML's basic strings."""
    return repr(value) if isinstance(value, float) else json.dumps(value)
