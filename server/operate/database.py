"""The SuperLink's database between two of its lives: what nobody will fetch any more is deleted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ...protocol.errors import FedoelError

# Flower's tables of messages and of what they consist of: adapters, for the most part.
UNDELIVERED = ("message_res", "message_ins", "object_push_sessions", "run_objects", "object_children", "objects")


def prune(database: Path) -> None:
    """Delete all messages from the database of a SuperLink that does not run, and give their room back.

    Flower 1.41 deletes a message when its reply is fetched, and all that is left of a run when the run ends. A run
    whose SuperLink was killed never ends, and nothing of it is fetched: `server start` makes another run of Flower.

    Raises
    ------
    FedoelError
        If the database is damaged, or the disk has no room.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                for table in UNDELIVERED:
                    if table in present:
                        connection.execute(f"DELETE FROM {table}")
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise FedoelError(
            f"{database} cannot be used ({error}): make room if the disk is full; if the file is damaged, move it "
            "away, and devices are registered in a new one"
        ) from error
