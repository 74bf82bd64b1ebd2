"""What a SuperLink that was killed has left undelivered is deleted before the next one starts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flwr.supercore.state.schema.corestate_models import NonceStore
from flwr.supercore.state.schema.linkstate_models import Node
from flwr.supercore.state.schema.objectstore_models import StoredObject
from sqlalchemy import create_engine

from fedoel.protocol.errors import FedoelError
from fedoel.server.operate.database import UNDELIVERED, prune

SIZE = 1_000_000
KEPT = "node"  # table of the registered devices


def make(path: Path) -> None:
    """Make the tables of a SuperLink."""
    engine = create_engine(f"sqlite:///{path}")
    for model in (NonceStore, Node, StoredObject):
        model.metadata.create_all(engine)
    engine.dispose()


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def fill(path: Path, table: str) -> None:
    """Insert a row, as large as an adapter where it may be."""
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        values = [bytes(SIZE) if name == "content" else 1 if "INT" in kind else "1" for _, name, kind, *_ in columns]
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def test_messages_go_and_devices_stay(tmp_path: Path) -> None:
    path = tmp_path / "superlink.sqlite"
    prune(path)
    assert not path.exists(), "nothing is made before the SuperLink makes it"
    make(path)
    for table in (*UNDELIVERED, KEPT):
        fill(path, table)
    assert path.stat().st_size > SIZE
    prune(path)
    assert [count(path, table) for table in (*UNDELIVERED, KEPT)] == [0] * len(UNDELIVERED) + [1]
    assert path.stat().st_size < SIZE


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "superlink.sqlite"
    path.write_text("this is no database, and long enough to be taken for one" * 100)
    with pytest.raises(FedoelError, match=r"cannot be used \(file is not a database\).*move it away"):
        prune(path)
