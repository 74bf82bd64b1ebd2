"""The state of a fleet: SuperLink, certificate, devices and run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from ...protocol.host.files import exposed_among
from ...protocol.records.summary import CycleRecord
from ..health import HEAD, known_health, note, rows
from ..journal import Journal
from ..log import NAME as LOG
from ..log import chained, read_lines
from ..run_folder import STORED, stored_config
from ..summary import NAME, read_summary, wins
from . import authority
from .flower import Fleet
from .folder import ServerFolder, Settings, read_settings
from .roll import Roll, read_roll
from .stop import told


def status(folder: ServerFolder) -> int:
    """Print the fleet's status; return the exit code 0 if the SuperLink answers, else 1."""
    settings = read_settings(folder)
    roll, fleet = read_roll(folder.roll), Fleet(folder, settings)
    running = fleet.running()
    print(_server(folder, settings, running))
    print(authority.told(folder))
    for line in told(folder):
        print(line)
    for path in exposed_among(folder.private):
        print(f"rights: others may read {path}: chmod go= it; if it is a key, make a new fleet if they did")
    for line in [*log(folder), *devices(roll, fleet.node_ids(), fleet.nodes() if running else {}), *run(folder)]:
        print(line)
    return 0 if running else 1


def devices(roll: Roll, nodes: dict[int, str], states: dict[str, str]) -> list[str]:
    """Return lines with the fleet's devices and the status of their nodes."""
    revoked = len(roll.devices) - len(roll.active)
    lines = [f"devices: {len(roll.active)} enrolled, {revoked} revoked"]
    for device in roll.active:
        state = states.get(nodes.get(device.number, ""), "unknown")
        lines.append(f"  {device.number:>4}  {device.name:<32}  {state}")
    return lines


def log(folder: ServerFolder) -> list[str]:
    """Return a line with the head of the fleet's log, unchecked."""
    heads = [logged.head for logged, _ in chained(read_lines(folder.fleet / LOG)[0]) if logged]
    return [f"log: head {heads[-1]}; fedoel server log verify checks it"] if heads else []


def run(folder: ServerFolder) -> list[str]:
    """Return lines with the finished cycles of the run."""
    if not (folder.run / STORED).exists():
        return ["run: not started"]
    cycles = stored_config(folder.run).cycles
    records = read_summary(folder.run).cycles if (folder.run / NAME).exists() else ()
    journal = Journal(folder.run, folder.fleet)
    pending = f"current version: {journal.current}, chosen by an operator; devices take it with the next message"
    return [
        f"run: {max(0, len(records) - 1)} of {cycles} cycles",
        *(f"  cycle {one.cycle}: {one.decision}, {wins(one)}, {one.version}{_reach(one)}" for one in records),
        *([pending] if journal.pending else []),
        *health(records),
    ]


def health(records: Sequence[CycleRecord]) -> list[str]:
    """Return lines with how the devices are, in the last cycle in which they said it, and in all."""
    lines = []
    for of, known in known_health(records):
        lines.append(f"health: of {of}. {note(known)}")
        for name, *cells in rows(known):
            said = ", ".join(f"{column} {cell}" for column, cell in zip(HEAD[1:], cells, strict=True))
            lines.append(f"  {name:<14}  {said}")
    return lines


def _reach(record: CycleRecord) -> str:
    return "" if record.reach is None else f", for {record.reach:.3g} of the fleet"


def _server(folder: ServerFolder, settings: Settings, running: bool) -> str:
    days = (authority.server_certificate(folder).not_valid_after_utc - datetime.now(UTC)).days
    state = "answers" if running else "does not answer"
    renew = "" if days > 30 else "; renew it: fedoel server init, with the same --host, then start the server again"
    return f"server: the SuperLink {state} on {settings.listen}; its certificate is valid for {days} days{renew}"
