"""The Flower app of a run for `flwr run`, which refers to the installed components, and the status of the run."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from ...protocol.config import RunConfig
from ...protocol.settings import to_table

COMPLETED = "finished:completed"
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
    (folder / "pyproject.toml").write_text(APP + config_block(config), encoding="utf-8")


def config_block(config: RunConfig) -> str:
    """Write the settings as the run config of a Flower app, ``[tool.flwr.app.config]``."""
    return tomli_w.dumps({"tool": {"flwr": {"app": {"config": to_table(config)}}}})


def run_started(log: Path) -> str:
    """Return the run id that `flwr run` logged; empty if it started none."""
    match = STARTED.search(log.read_text(errors="replace"))
    return match[1] if match else ""


def run_status(run: str, connection: str, environment: Mapping[str, str]) -> str:
    """Return a run's status from the SuperLink: `flwr run` exits with 0 even if the run failed."""
    if not run:
        return "not started"
    command = ["flwr", "ls", connection, "--run-id", run, "--format", "json"]
    answer = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    try:
        return str(json.loads(answer.stdout)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError):
        return f"unknown: {answer.stdout[-500:]}{answer.stderr[-500:]}"
