"""The Flower app of a run for `flwr run`, which refers to the installed components, and the status of the run."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from ...protocol.config import RunConfig, Scalar
from ...protocol.errors import FedoelError
from ...protocol.host.processes import tail
from ...protocol.settings import nested
from .flower import FLWR

COMPLETED = "finished:completed"
NOT_BEGUN = ("not started", "pending", "starting")
BEGIN_SECONDS = 300.0  # in which Flower starts the process of a ServerApp, which takes seconds
STARTED = re.compile(r"started run (\d+)")
APP = """\
[project]
name = "fedoel-run"
version = "1.0.0"
description = "One run of fedoel"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedoel"

[tool.flwr.app.components]
serverapp = "fedoel.server.app:app"
clientapp = "fedoel.client.app:app"

"""


def write_app(folder: Path, config: RunConfig) -> None:
    """Write a Flower app that refers to the installed components, with the run's configuration as its run config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(APP + config_block(config.to_devices()), encoding="utf-8")


def config_block(settings: Mapping[str, Scalar]) -> str:
    """Write flat settings as the run config of a Flower app, ``[tool.flwr.app.config]``."""
    return tomli_w.dumps({"tool": {"flwr": {"app": {"config": nested(settings)}}}})


def run_started(log: Path) -> str:
    """Return the run id that `flwr run` logged; empty if it started none."""
    match = STARTED.search(log.read_text(errors="replace"))
    return match[1] if match else ""


def run_status(run: str, connection: str, environment: Mapping[str, str]) -> str:
    """Return a run's status from the SuperLink: `flwr run` exits with 0 even if the run failed."""
    if not run:
        return "not started"
    command = [*FLWR, "ls", connection, "--run-id", run, "--format", "json"]
    answer = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    try:
        return str(json.loads(answer.stdout)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError):
        return f"unknown: {answer.stdout[-500:]}{answer.stderr[-500:]}"


@dataclass
class Beginning:
    """Watches that a run begins: Flower leaves one that no process takes up pending for ever.

    Parameters
    ----------
    log, connection, environment
        As for `run_started` and `run_status`.
    seconds
        How long to wait.
    clock
        Seconds that never go backwards.
    """

    log: Path
    connection: str
    environment: Mapping[str, str]
    seconds: float = BEGIN_SECONDS
    clock: Callable[[], float] = time.monotonic
    begun: bool = False
    _due: float = field(init=False)

    def __post_init__(self) -> None:
        self._due = self.clock() + self.seconds

    def check(self) -> None:
        """Ask for the status of a run that has not begun in time; raises `FedoelError` if nobody has taken it up."""
        if self.begun or self.clock() < self._due:
            return
        self._due = self.clock() + self.seconds
        status = run_status(run_started(self.log), self.connection, self.environment)
        if status in NOT_BEGUN:
            raise FedoelError(
                f"Flower has left the run '{status}' for {self.seconds:.0f} s: its SuperLink has started no process "
                "for the server's app. Finished work is kept: start it again, with free memory and processes. "
                f"The end of Flower's log:\n{tail(self.log)}"
            )
