"""Between two SuperLinks: what was left undelivered is deleted, and the next one waits for the devices of the first."""

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
from fedoel.server.operate.database import UNDELIVERED, connected, prune, wait_until_back

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


def nodes(path: Path, *rows: tuple[int, str, float]) -> None:
    """Write down nodes with a heartbeat of 30 s: their number, status and the moment until which they are online."""
    make(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for node, status, until in rows:
            connection.execute(
                "INSERT INTO node (node_id, status, online_until, heartbeat_interval) VALUES (?, ?, ?, 30)",
                (node, status, until),
            )


def come_back(path: Path, node: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE node SET status = 'online', online_until = 2e9 WHERE node_id = ?", (node,))


class Seconds:
    """A clock that runs while somebody sleeps; at given seconds nodes come back."""

    def __init__(self, path: Path, back: dict[float, int]) -> None:
        self.now, self.path, self.back = 0.0, path, back

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.back if at <= self.now]:
            come_back(self.path, self.back.pop(at))

    def said(self, before: frozenset[int], most: float) -> list[str]:
        """Wait, and return what is said."""
        said: list[str] = []
        wait_until_back(self.path, before, most, said.append, lambda: self.now, self.sleep)
        return said


def test_a_server_that_is_started_again_waits_for_the_devices_that_were_connected(tmp_path: Path) -> None:
    path = tmp_path / "superlink.sqlite"
    assert connected(path) == frozenset(), "there was none before"
    # The last sign of life is of second 1,000: node 3 had been silent for two heartbeats by then, and node 4 had left.
    nodes(path, (1, "online", 1060.0), (2, "online", 1010.0), (3, "online", 999.0), (4, "offline", 400.0))
    before = connected(path)
    assert before == {1, 2}
    prune(path)
    assert connected(path) == frozenset(), "nobody is there before it has said that it lives"
    clock = Seconds(path, {3.0: 1, 17.0: 2})
    waits, back = clock.said(before, 60.0)
    assert clock.now == 17.0
    assert waits == "waiting up to 60 s for the 2 devices that were connected when the server ended"
    assert back == "all 2 are back"


def test_a_server_that_is_started_again_does_not_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "superlink.sqlite"
    nodes(path, (1, "online", 1060.0), (2, "online", 1060.0), (3, "online", 1060.0))
    before = connected(path)
    prune(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE node SET status = 'unregistered' WHERE node_id = 3")  # revoked meanwhile
    clock = Seconds(path, {2.0: 1})
    assert clock.said(before, 60.0)[1:] == ["1 of them are not back after 60 s: the run goes on without them"]
    assert clock.now == 60.0
    assert Seconds(path, {}).said(before, 0.0) == [], "0 does not wait"
    assert Seconds(path, {}).said(frozenset({1}), 60.0) == [], "it is back already"
