"""Runs the SuperLink and the fleet's run until the run ends or is interrupted."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import quote

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError, FedoelError
from ...protocol.fleet.notice import Notice
from ...protocol.host.cache import cache_folder
from ...protocol.host.files import check_secret, make_private_folder
from ...protocol.host.lock import one_owner
from ...protocol.host.processes import tail
from ...protocol.play import specs_from_text
from ...protocol.prompt_pack import read_pack, write_pack
from ...protocol.records.events import CycleFinished, Event
from ..app import check
from ..events import LOG, follow
from ..log import FleetLog
from ..notice import newest_notice
from ..run_folder import STORED, own_folder
from ..summary import wins
from .authority import check_certificate
from .database import connected, wait_until_back
from .flower import CONNECTION, FLWR, Fleet
from .folder import ServerFolder, Settings, read_settings, run_of, with_own_prompts
from .roll import Roll, devices, read_roll
from .run_app import COMPLETED, Beginning, run_started, run_status, write_app
from .stop import said

POLL_SECONDS = 0.5
STATUS_SECONDS = 20.0
UNFINISHED = ("pending", "starting", "running")


def start(folder: ServerFolder) -> int:
    """Run the SuperLink and the fleet's run; an interrupted run is resumed."""
    settings = read_settings(folder)
    with one_owner(folder.lock, f"runs the server in {folder.path}: stop it first"):
        return _start(folder, settings)


def _start(folder: ServerFolder, settings: Settings) -> int:
    roll, fleet = read_roll(folder.roll), Fleet(folder, settings)
    if not roll.active and not (folder.run / STORED).exists():
        raise ConfigError(
            "no device is enrolled yet, and a run is planned for the number of its devices: enrol them first with "
            f"`fedoel server enroll {quote(str(folder.path))} DEVICE.pub`"
        )
    config = run_of(folder, roll)
    _check_keys(folder)
    check(config, cache_folder(config))
    if fleet.running():
        pid = fleet.process_file.read_text() if fleet.process_file.exists() else ""
        remedy = f"kill process {pid} if it is a SuperLink left from an earlier start" if pid else "stop it"
        raise ConfigError(f"{fleet.url} is in use: {remedy}, or change listen in server.toml")
    config = _with_copied_prompts(folder, config)
    if config.server.public == "prompts" and (missing := families_without_prompts(config)):
        print(f"no prompt is of {', '.join(missing)}: `fedoel prompts make` makes a pack of what games.families names")
    for private in (folder.path, folder.fleet, folder.flower, folder.run):
        make_private_folder(private)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that child processes are stopped
    with own_folder(config):
        write_app(folder.flower / "app", config)
        events = follow(folder.run / LOG)
        status = _serve(folder, fleet, roll, events)
    _print_progress(events)
    if status != COMPLETED:
        raise FedoelError(
            f"the run is '{status}'; finished work is kept, and the same command resumes it. The end of the logs:\n"
            f"{tail(folder.flower / 'run.log')}\n{tail(folder.log)}"
        )
    print(f"the run is complete: {folder.run / 'summary.json'}")
    print(f"where all of fedoel is installed, this draws it: fedoel report {quote(str(folder.run))}")
    return 0


def _serve(folder: ServerFolder, fleet: Fleet, roll: Roll, events: Iterator[Event | None]) -> str:
    """Run the SuperLink, and the run on it, and return the run's final status."""
    settings, before = fleet.settings, connected(folder.database)
    with fleet.superlink() as environment:
        print(f"the SuperLink listens on {settings.listen}; devices reach it at {settings.address}", flush=True)
        fleet.register(roll)
        print(f"{devices(len(roll.active))} may connect", flush=True)
        wait_until_back(folder.database, before, settings.reconnect, partial(print, flush=True))
        return _run(folder, environment, events)


def _with_copied_prompts(folder: ServerFolder, config: RunConfig) -> RunConfig:
    """Copy the pack of prompts into the folder, and return the configuration that names the copy.

    The run must not depend on a file that somebody may move or change. A run that has begun has its copy already.
    """
    own = with_own_prompts(folder, config)
    if own != config:
        write_pack(folder.prompts, read_pack(Path(config.server.prompts)))
    return own


def families_without_prompts(config: RunConfig) -> list[str]:
    """Return the families of the run's games of which its pack has no prompts, as after a change of the families.

    Such a run is allowed, and learns less.
    """
    prompts = read_pack(Path(config.server.prompts)).families
    return sorted({spec.family for spec in specs_from_text(config.games.families)} - {*prompts})


def _check_keys(folder: ServerFolder) -> None:
    """Check that the private keys exist, are readable by their owner only, and belong to their certificates.

    Raises
    ------
    ConfigError
        If a key is missing or of another certificate, or the mode of its file allows others to read it.
    """
    for path in (folder.key, folder.ca_key, folder.fleet / "fleet.key"):
        if not path.exists():
            raise ConfigError(f"{path} is missing: restore it from a copy, or make a new fleet")
        check_secret(path, "make a new fleet")
    check_certificate(folder)


def _run(folder: ServerFolder, environment: Mapping[str, str], events: Iterator[Event | None]) -> str:
    """Submit the run to the SuperLink, print its progress, and return its final status."""
    log = folder.flower / "run.log"
    command = [*FLWR, "run", str(folder.flower / "app"), CONNECTION, "--stream"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder.flower
        )
    beginning = Beginning(log, CONNECTION, environment)
    try:
        number, fleet_log = 0, FleetLog(folder.fleet)  # kept: it reads only what is new
        while process.poll() is None:
            number = _print_notice(folder, newest_notice(folder.fleet, fleet_log), number)
            beginning.begun |= _print_progress(events)
            beginning.check()
            time.sleep(POLL_SECONDS)
        run = run_started(log)
        # The run can outlast the stream of its log.
        while (status := run_status(run, CONNECTION, environment)) in UNFINISHED:
            beginning.begun |= _print_progress(events)
            beginning.check()
            time.sleep(STATUS_SECONDS)
        return status
    finally:
        process.kill()
        process.wait()


def _print_notice(folder: ServerFolder, notice: Notice | None, before: int) -> int:
    """Print a notice to devices that is newer than the last one printed, unless it is an old one to go on."""
    if notice is None or notice.number <= before:
        return before
    if notice.stop or before:
        print(f"{said(folder, notice)}{'; the run waits' * notice.stop}", flush=True)
    return notice.number


def _print_progress(events: Iterator[Event | None]) -> bool:
    """Print one line per finished cycle; return whether there was any event."""
    some = False
    while (event := next(events)) is not None:
        some = True
        if isinstance(event, CycleFinished):
            record = event.entry
            refused = ", ".join(f"{count} x {reason}" for reason, count in record.refused.items()) or "none"
            print(
                f"cycle {record.cycle}: {record.decision}, {wins(record)}, "
                f"{record.accepted} devices accepted; refused: {refused}",
                flush=True,
            )
    return some
