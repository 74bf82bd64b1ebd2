"""How a fleet is: certificate, devices and run, from the folder and a SuperLink that answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from ..run_folder import STORED, stored_config
from .flower import Fleet
from .folder import ServerFolder, Settings, read_settings
from .roll import Roll, read_roll


def status(folder: ServerFolder) -> int:
    """Print how the fleet is; exit with 0 if the SuperLink answers, else with 1."""
    settings = read_settings(folder)
    roll, fleet = read_roll(folder.roll), Fleet(folder, settings)
    running = fleet.running()
    print(_server(folder, settings, running))
    for line in [*devices(roll, fleet.node_ids(), fleet.nodes() if running else {}), *run(folder)]:
        print(line)
    return 0 if running else 1


def devices(roll: Roll, nodes: dict[int, str], states: dict[str, str]) -> list[str]:
    """Say who belongs to the fleet, and who of them is there."""
    gone = len(roll.devices) - len(roll.active)
    lines = [f"devices: {len(roll.active)} enrolled, {gone} revoked"]
    for device in roll.active:
        state = states.get(nodes.get(device.number, ""), "unknown")
        lines.append(f"  {device.number:>4}  {device.name:<32}  {state}")
    return lines


def run(folder: ServerFolder) -> list[str]:
    """Say how far the run is."""
    if not (folder.run / STORED).exists():
        return ["run: not begun"]
    cycles = stored_config(folder.run).cycles
    path = folder.run / "summary.json"
    entries: list[dict[str, Any]] = json.loads(path.read_bytes())["cycles"] if path.exists() else []
    lines = [f"run: {max(0, len(entries) - 1)} of {cycles} cycles"]
    for entry in entries:
        rate = entry["held_out"]["win_rate"]
        lines.append(f"  cycle {entry['cycle']}: {entry['decision']}, {rate:.0%} of held-out games, {entry['version']}")
    return lines


def _server(folder: ServerFolder, settings: Settings, running: bool) -> str:
    certificate = x509.load_pem_x509_certificate(folder.certificate.read_bytes())
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    state = "answers" if running else "does not answer"
    renew = "" if days > 30 else "; renew it: fedoel server init, with the same --host, then start the server again"
    return f"server: the SuperLink {state} on {settings.listen}; its certificate holds for {days} days{renew}"
