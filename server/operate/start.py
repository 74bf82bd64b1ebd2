"""The SuperLink, and on it the fleet's run, to its end or until somebody stops it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...games.store import cache_folder
from ...protocol.errors import ConfigError, FedoelError
from ...protocol.host.processes import tail
from ...protocol.host.secret_file import check_secret
from ..app import check
from ..events import Event, follow
from ..run_folder import prepare_folder
from .flower import CONNECTION, Fleet
from .folder import ServerFolder, read_settings
from .roll import read_roll
from .run_app import COMPLETED, run_started, run_status, write_app
from .run_file import run_of

POLL_SECONDS = 0.5
ASK_SECONDS = 20.0
UNDER_WAY = ("pending", "starting", "running")


def start(folder: ServerFolder) -> int:
    """Run the SuperLink and the fleet's run; started again, the run goes on where it was."""
    settings = read_settings(folder)
    roll, fleet = read_roll(folder.roll), Fleet(folder, settings)
    config = run_of(folder, roll)
    _check_keys(folder)
    check(config, cache_folder(config))
    if fleet.running():
        pid = fleet.process_file.read_text() if fleet.process_file.exists() else ""
        remedy = f"kill {pid}, if that is the SuperLink of a server that was killed" if pid else "stop it"
        raise ConfigError(f"something answers at {fleet.url} already: {remedy}, or change listen in server.toml")
    prepare_folder(config)
    folder.flower.mkdir(exist_ok=True, mode=0o700)
    write_app(folder.flower / "app", config)
    events = follow(folder.run / "events.jsonl")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs below is ended on the way out
    with fleet.superlink() as environment:
        print(f"the SuperLink listens on {settings.listen}; devices reach it at {settings.address}", flush=True)
        fleet.register(roll)
        print(f"{len(roll.active)} devices may come in", flush=True)
        status = _run(folder, environment, events)
    _tell(events)
    if status != COMPLETED:
        raise FedoelError(
            f"the run is '{status}'; what is done is kept, and the same command goes on. The end of the logs:\n"
            f"{tail(folder.flower / 'run.log')}\n{tail(folder.log)}"
        )
    print(f"the run is complete: {folder.run / 'summary.json'}")
    print(f"where all of fedoel is installed, this draws it: fedoel report {folder.run}")
    return 0


def _check_keys(folder: ServerFolder) -> None:
    """Refuse to serve with keys that others may have read.

    Raises
    ------
    ConfigError
        If one is missing, or its file's mode is too open.
    """
    for path in (folder.key, folder.ca_key, folder.fleet / "fleet.key"):
        if not path.exists():
            raise ConfigError(f"{path} is missing: put back a copy of it, or make a new fleet")
        check_secret(path, "make a new fleet")


def _run(folder: ServerFolder, environment: Mapping[str, str], events: Iterator[Event | None]) -> str:
    """Hand the run to the SuperLink, say what happens, and return how it ended."""
    log = folder.flower / "run.log"
    command = ["flwr", "run", str(folder.flower / "app"), CONNECTION, "--stream"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder.flower
        )
    try:
        while process.poll() is None:
            _tell(events)
            time.sleep(POLL_SECONDS)
        return _outcome(log, environment, events)
    finally:
        process.kill()
        process.wait()


def _outcome(log: Path, environment: Mapping[str, str], events: Iterator[Event | None]) -> str:
    """Ask how the run ended; the stream of its log may have ended before it did."""
    run = run_started(log)
    while (status := run_status(run, CONNECTION, environment)) in UNDER_WAY:
        _tell(events)
        time.sleep(ASK_SECONDS)
    return status


def _tell(events: Iterator[Event | None]) -> None:
    """Print what the operator wants to know of the run's events."""
    while (event := next(events)) is not None:
        if event["event"] == "cycle_finished":
            entry = event["entry"]
            rate = entry["held_out"]["win_rate"]
            refused = ", ".join(f"{count} x {reason}" for reason, count in entry["refused"].items()) or "none"
            print(
                f"cycle {entry['cycle']}: {entry['decision']}, {rate:.0%} of held-out games, "
                f"{entry['accepted']} devices counted; refused: {refused}",
                flush=True,
            )
