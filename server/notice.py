"""The owner's notices to the fleet: signed, in its transparency log, which is where the newest one is read from.

Which nodes have acknowledged the newest notice is kept beside the log, so that every process of a run adds to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path

from ..protocol.fleet.log import NOTICE
from ..protocol.fleet.notice import Notice
from ..protocol.host.files import write_whole
from ..protocol.host.lock import in_turn
from ..protocol.signing import sign_notice
from .fleet import owner_key
from .log import FleetLog

ACKNOWLEDGED, LOCK = "acknowledged.json", "notice.lock"


def publish_notice(keys: Path, stop: bool, reason: str = "") -> Notice:
    """Sign a notice that replaces all earlier ones, and write it into the fleet's log.

    Raises
    ------
    VersionError
        If the reason is too long, or not one line.
    ConfigError
        If the owner's key is missing.
    FedoelError
        If the log is damaged, or the disk refuses it.
    """
    with in_turn(keys / LOCK):
        before = newest_notice(keys)
        notice = Notice((before.number if before else 0) + 1, stop, int(time.time()), reason)
        FleetLog(keys).add(owner_key(keys), NOTICE, **notice.entry)
    return notice


def newest_notice(keys: Path, log: FleetLog | None = None) -> Notice | None:
    """Return the newest notice in the fleet's log, not signed; None if there is none.

    Parameters
    ----------
    log
        The log in the folder, of a process that looks at it again and again.
    """
    values = (log or FleetLog(keys)).newest(NOTICE)
    return Notice.of_entry(values) if values else None


def signed_notice(keys: Path, log: FleetLog | None = None) -> Notice | None:
    """Return the newest notice as devices accept it, signed by the present key of the fleet."""
    notice = newest_notice(keys, log)
    return sign_notice(owner_key(keys), notice) if notice else None


def acknowledge(keys: Path, number: int, nodes: Collection[int]) -> None:
    """Write down which nodes have acknowledged a notice, with those that had before."""
    with in_turn(keys / LOCK):
        before = _acknowledged(keys, number)
        if new := set(nodes) - before:
            write_whole(keys / ACKNOWLEDGED, json.dumps({"notice": number, "nodes": sorted(before | new)}))


def acknowledged(keys: Path, number: int) -> int:
    """Return how many nodes have acknowledged a notice."""
    return len(_acknowledged(keys, number))


def _acknowledged(keys: Path, number: int) -> set[int]:
    try:
        table = json.loads((keys / ACKNOWLEDGED).read_bytes())
        return set(map(int, table["nodes"])) if table["notice"] == number else set()
    except (OSError, ValueError, KeyError, TypeError):  # it only informs
        return set()
