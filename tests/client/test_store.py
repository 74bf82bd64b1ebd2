"""The device's store: trajectories are read as written, with the right key only, and a damaged row harms no other."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedoel.client.store import TrajectoryStore, key_from_file, key_from_keyring
from fedoel.client.trajectory_bytes import trajectory_from_bytes, trajectory_to_bytes
from fedoel.protocol.errors import StoreError
from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Situation

KEY, OTHER = bytes(range(32)), bytes(32)
SECRET = "the safe opens with 4711"


def trajectory(seed: int = 0) -> Trajectory:
    situation = Situation(
        SECRET,
        "vault",
        SECRET,
        "",
        "look",
        ("key",),
        "",
        ("look",),
        frozenset({"look"}),
        (),
        "",
        ("open safe", "wait"),
        1,
        5,
    )
    turn = Turn(situation, np.log(np.array([0.25, 0.75], np.float32)), 1, 0.5)
    return Trajectory(GameSpec.parse("vault doors=2 turns=5"), seed, "v1", (turn, turn), True, False, 1.0, 17)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> TrajectoryStore:
    return TrajectoryStore(tmp_path / "device" / "store.sqlite", "client-1", KEY, clock)


def same(one: Trajectory, other: Trajectory) -> bool:
    pairs = zip(one.turns, other.turns, strict=True)
    return replace(one, turns=()) == replace(other, turns=()) and all(
        a.situation == b.situation
        and np.array_equal(a.log_probs, b.log_probs)
        and (a.action, a.reward) == (b.action, b.reward)
        for a, b in pairs
    )


def test_trajectories_are_read_as_they_were_written(store: TrajectoryStore) -> None:
    assert store.add([trajectory(1), trajectory(2)]) == [1, 2]
    contents = store.read()
    assert contents.damaged == () and [row.id for row in contents.rows] == [1, 2]
    assert all(same(row.trajectory, trajectory(row.id)) for row in contents.rows)
    assert same(trajectory_from_bytes(trajectory_to_bytes(trajectory())), trajectory())


def test_nothing_is_readable_on_the_disk(store: TrajectoryStore) -> None:
    store.add([trajectory()] * 20)
    content = store.path.read_bytes()
    assert not [word for word in (b"safe", b"4711", b"vault", b"look") if word in content]
    assert store.path.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(("client", "key"), [("client-1", OTHER), ("client-2", KEY)])
def test_another_key_or_client_is_refused_before_anything_is_written(
    store: TrajectoryStore, client: str, key: bytes
) -> None:
    store.add([trajectory()])
    before = store.path.read_bytes()
    with pytest.raises(StoreError, match="another key or another client"):
        TrajectoryStore(store.path, client, key)
    assert store.path.read_bytes() == before


def changed(store: TrajectoryStore, statement: str) -> None:
    with sqlite3.connect(store.path) as database:
        database.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET sealed = substr(sealed, 1, 20) WHERE id = 2",
        "UPDATE rows SET sealed = zeroblob(40) WHERE id = 2",
        "UPDATE rows SET sealed = x'' WHERE id = 2",
        "UPDATE rows SET sealed = (SELECT sealed FROM rows WHERE id = 1) WHERE id = 2",
    ],
)
def test_a_damaged_row_leaves_all_others_readable(store: TrajectoryStore, statement: str) -> None:
    store.add([trajectory(n) for n in (1, 2, 3)])
    changed(store, statement)
    contents = store.read()
    assert contents.damaged == (2,) and [row.trajectory.seed for row in contents.rows] == [1, 3]
    store.rotate(OTHER)
    assert [row.id for row in store.read().rows] == [1, 3]


@pytest.mark.parametrize("cut", [0.75, 0.9])
def test_the_rest_of_a_truncated_file_can_be_read(store: TrajectoryStore, cut: float) -> None:
    store.add([trajectory(n) for n in range(1, 61)])
    content = store.path.read_bytes()
    store.path.write_bytes(content[: int(len(content) * cut)])
    contents = TrajectoryStore(store.path, "client-1", KEY).read()
    assert 60 * cut - 15 < len(contents.rows) < 60 * cut + 5 and contents.damaged
    assert all(row.trajectory.seed == row.id for row in contents.rows)


def test_a_file_of_which_too_little_is_left_is_said_to_be_damaged(store: TrajectoryStore) -> None:
    store.add([trajectory(n) for n in range(60)])
    store.path.write_bytes(store.path.read_bytes()[:4000])
    with pytest.raises(StoreError, match="move it away"):
        TrajectoryStore(store.path, "client-1", KEY).read()


def test_another_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not a database, but long enough to be taken for one by its size alone" * 20)
    with pytest.raises(StoreError, match="not a database"):
        TrajectoryStore(tmp_path / "notes", "client-1", KEY)
    with pytest.raises(StoreError, match="cannot be written"):
        TrajectoryStore(tmp_path / "notes" / "store", "client-1", KEY)


def test_a_write_that_fails_half_way_leaves_nothing(store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add([trajectory(1)])
    calls: list[int] = []

    def failing(each: Trajectory) -> bytes:
        calls.append(each.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trajectory_to_bytes(each)

    monkeypatch.setattr("fedoel.client.store.trajectory_to_bytes", failing)
    with pytest.raises(KeyboardInterrupt):
        store.add([trajectory(2), trajectory(3)])
    assert [row.trajectory.seed for row in store.read().rows] == [1]


def test_keys_rotate(store: TrajectoryStore) -> None:
    store.add([trajectory(1), trajectory(2)])
    store.rotate(OTHER)
    with pytest.raises(StoreError, match="another key"):
        TrajectoryStore(store.path, "client-1", KEY)
    assert len(TrajectoryStore(store.path, "client-1", OTHER).read().rows) == 2


def test_old_rows_and_large_stores_are_pruned(store: TrajectoryStore, clock: Clock) -> None:
    for clock.now in (100.0, 200.0, 300.0, 400.0):
        store.add([trajectory(int(clock.now))])
    assert store.prune(max_age=250.0) == 1
    with sqlite3.connect(store.path) as base:
        size = base.execute("SELECT max(length(sealed)) FROM rows").fetchone()[0]
    assert store.prune(max_bytes=2 * size) == 1
    assert [row.trajectory.seed for row in store.read().rows] == [300, 400]
    assert store.prune() == 0


def test_a_store_does_not_grow_for_ever(store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedoel.client.store.KEPT_USES", 20)
    sizes = list[int]()
    for vector in range(60):
        store.note_use(store.add([trajectory()] * 2), bytes([vector]))
        store.prune(max_bytes=4000)
        sizes.append(store.path.stat().st_size)
    assert len(store.uses()) == 20 and store.uses()[-1].row == 120
    assert sizes[-1] == sizes[20]


def test_uses_are_written_down_and_outlive_rows(store: TrajectoryStore, clock: Clock) -> None:
    numbers = store.add([trajectory(1), trajectory(2)])
    store.note_use(numbers, b"abc")
    clock.now = 1e9
    store.prune(max_age=1.0)
    first, second = store.uses()
    assert (first.row, second.row) == (1, 2) and first.vector == second.vector
    plain = hashlib.sha256(b"abc").hexdigest()
    assert first.vector not in plain and hmac.digest(KEY, b"abc", "sha256").hex()[:16] != first.vector
    assert store.add([trajectory(3)]) == [3], "numbers are never used again"


def test_a_wiped_store_is_gone(store: TrajectoryStore) -> None:
    store.add([trajectory()])
    store.wipe()
    store.wipe()
    assert not store.path.exists()


def test_trajectories_of_another_format_are_refused() -> None:
    for data in (b"", b"junk", trajectory_to_bytes(trajectory())[:-3]):
        with pytest.raises(StoreError, match="cannot be read"):
            trajectory_from_bytes(data)


def test_a_key_file_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "store.key"
    assert key_from_file(path) == key_from_file(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        key_from_file(path)
    path.chmod(0o600)
    path.write_text("abc")
    with pytest.raises(StoreError, match="no key of 32 bytes"):
        key_from_file(path)
    with pytest.raises(StoreError, match="has 32 bytes"):
        TrajectoryStore(tmp_path / "store", "client-1", b"short")


def test_the_keyring_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: the real one needs a desktop session."""
    kept: dict[tuple[str, str], str] = {}

    class Ring:
        get_password: Callable[..., str | None] = staticmethod(lambda service, name: kept.get((service, name)))
        set_password: Callable[..., None] = staticmethod(
            lambda service, name, key: kept.__setitem__((service, name), key)
        )

    class Errors:
        KeyringError = OSError

    monkeypatch.setitem(__import__("sys").modules, "keyring", Ring)
    monkeypatch.setitem(__import__("sys").modules, "keyring.errors", Errors)
    assert key_from_keyring("client-1") == key_from_keyring("client-1") != key_from_keyring("client-2")


def test_without_a_keyring_a_file_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    with pytest.raises(StoreError, match="keep the key in a file"):
        key_from_keyring("client-1")


def test_a_store_that_another_process_writes_is_not_called_damaged(
    store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(store.path)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("fedoel.client.store.sqlite3.connect", partial(sqlite3.connect, timeout=0.0))
    with pytest.raises(StoreError, match=r"another process writes to the store .*: try again"):
        store.add([trajectory()])
    other.close()
    store.add([trajectory()])
    assert len(store.read().rows) == 1
