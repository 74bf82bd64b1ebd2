"""The SuperLink's database between two of its lives: what nobody will fetch any more is deleted, and who was there.

A SuperLink that was killed leaves every device that was connected as online, until twice its heartbeat has passed. The
devices themselves try to reach it again after up to 20 s. A message to one that comes back later than that is answered
by Flower in its place, as of a device that is gone: so nobody is asked before those that were there are back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Set
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...protocol.errors import FedoelError

# Flower's tables of messages and of what they consist of: adapters, for the most part.
UNDELIVERED = ("message_res", "message_ins", "object_push_sessions", "run_objects", "object_children", "objects")
NODES = "node"  # Flower's table of registered devices
ONLINE, OFFLINE, UNREGISTERED = "online", "offline", "unregistered"
PATIENCE = 2  # heartbeats after which Flower takes a device for gone
POLL_SECONDS = 0.5


def connected(database: Path) -> frozenset[int]:
    """Return the nodes that were connected when the SuperLink of this database ended; none if it has never run.

    It ended after the last sign of life of any node: those that Flower would have taken for gone by then were away.

    Raises
    ------
    FedoelError
        If the database is damaged.
    """
    rows = _rows(database, f"SELECT node_id, online_until, heartbeat_interval FROM {NODES} WHERE status = '{ONLINE}'")
    latest = max((until - PATIENCE * interval for _, until, interval in rows), default=0.0)
    return frozenset(node for node, until, _ in rows if until >= latest)


def wait_until_back(
    database: Path,
    nodes: Set[int],
    seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until nodes that were connected have reached the SuperLink that runs now, and say so.

    Parameters
    ----------
    nodes
        What `connected` returned before `prune`. Those that are no longer registered are not waited for.
    seconds
        After which the run goes on without those that are missing.
    """
    deadline, said = clock() + seconds, False
    while missing := nodes - _there(database):
        if clock() >= deadline:
            if seconds:
                say(f"{len(missing)} of them are not back after {seconds:.0f} s: the run goes on without them")
            return
        if not said:
            say(f"waiting up to {seconds:.0f} s for the {len(nodes)} devices that were connected when the server ended")
            said = True
        sleep(min(POLL_SECONDS, max(0.0, deadline - clock())))
    if said:
        say(f"all {len(nodes)} are back")


def _there(database: Path) -> frozenset[int]:
    """Return the nodes that are connected now, or may connect no more."""
    statement = f"SELECT node_id FROM {NODES} WHERE status IN ('{ONLINE}', '{UNREGISTERED}')"
    return frozenset(node for (node,) in _rows(database, statement))


def prune(database: Path) -> None:
    """Delete all messages from the database of a SuperLink that does not run, and give their room back.

    Every node is offline from then on, until it says again that it lives.

    Flower 1.41 deletes a message when its reply is fetched, and all that is left of a run when the run ends. A run
    whose SuperLink was killed never ends, and nothing of it is fetched: `server start` makes another run of Flower.

    Raises
    ------
    FedoelError
        If the database is damaged, or the disk has no room.
    """
    if not database.exists():
        return
    now = datetime.now(UTC)
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                for table in UNDELIVERED:
                    if table in present:
                        connection.execute(f"DELETE FROM {table}")
                if NODES in present:
                    connection.execute(
                        f"UPDATE {NODES} SET status = ?, online_until = ?, last_deactivated_at = ? WHERE status = ?",
                        (OFFLINE, now.timestamp(), now.isoformat(), ONLINE),
                    )
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise _unusable(database, error) from error


def _rows(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return what a statement selects; nothing if the SuperLink has not made its tables yet."""
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(database)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (NODES,)).fetchone()
            return connection.execute(statement).fetchall() if known else []
    except sqlite3.Error as error:
        raise _unusable(database, error) from error


def _unusable(database: Path, error: sqlite3.Error) -> FedoelError:
    return FedoelError(
        f"{database} cannot be used ({error}): make room if the disk is full; if the file is damaged, move it "
        "away, and devices are registered in a new one"
    )
