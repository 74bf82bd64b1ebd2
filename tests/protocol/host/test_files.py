"""Durable writes: what a crash at any step leaves, and that files and folders are forced to the disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.host.files import (
    append_line,
    create_secret,
    exposed_among,
    make_private_file,
    make_private_folder,
    move_into_place,
    replace_file,
    write_whole,
)

Write = Callable[[Path, str], None]
write_secret = partial(replace_file, secret=True)
WRITERS = pytest.mark.parametrize("write", [write_whole, replace_file, write_secret])


class Crash(BaseException):
    """The process dies: nobody handles this."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What has been forced to the disk since, in order, under the name that it had then."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells which file a descriptor is of in this way")
    paths, fsync = list[Path](), os.fsync

    def spy(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return paths


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.npz"
    write_whole(path, b"one")
    write_whole(path, "zwei Bäume")
    assert path.read_bytes() == "zwei Bäume".encode()
    assert [found.name for found in path.parent.iterdir()] == ["kept.npz"]


def test_private_folders_and_files_lose_the_rights_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "keys"
    make_private_folder(folder)
    file = folder / "log"
    make_private_file(file)
    append_line(folder / "ledger", b"one", secret=True)
    for path, mode in ((folder, 0o700), (file, 0o600), (folder / "ledger", 0o600)):
        assert path.stat().st_mode & 0o777 == mode
        path.chmod(0o755)
    assert exposed_among([folder, file, folder / "nowhere"]) == [folder, file]
    make_private_folder(folder)
    make_private_file(file)
    append_line(folder / "ledger", b"two", secret=True)
    assert exposed_among([folder, file, folder / "ledger"]) == []


def test_a_folder_of_another_user_is_refused_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="another user's: choose another folder"):
        make_private_folder(tmp_path)


def test_the_old_content_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.npz"
    write_whole(path, b"one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FedoelError, match=r"kept\.npz cannot be written: No space left.*--resume"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"


@WRITERS
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, "one"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_at_any_step_leaves_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, call: str, before: str | None, number: int
) -> None:
    path, calls, original = tmp_path / "state", list[Any](), getattr(os, call)
    if before is not None:
        write(path, before)

    def crash(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == number:
            raise Crash
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        try:
            write(path, "two")
        except Crash:
            renamed = (call, number) == ("fsync", 2)
        else:
            renamed = True
    assert (path.read_text() if path.exists() else None) == ("two" if renamed else before)
    write(path, "three")
    assert path.read_text() == "three"


@WRITERS
def test_content_is_on_the_disk_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        synced.append(Path("renamed"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write(tmp_path / "state", "one")
    assert synced == [tmp_path / "state.part", Path("renamed"), tmp_path]


def test_a_new_folder_is_on_the_disk_too(tmp_path: Path, synced: list[Path]) -> None:
    replace_file(tmp_path / "a" / "b" / "state", "one")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


def test_everything_in_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[Path]) -> None:
    draft = tmp_path / "making"
    (draft / "inner").mkdir(parents=True)
    for name in ("one", "inner/two"):
        (draft / name).write_text(name)
    move_into_place(draft, tmp_path / "whole")
    assert set(synced[:-1]) == {draft, draft / "one", draft / "inner", draft / "inner" / "two"}
    assert synced[-1] == tmp_path
    assert (tmp_path / "whole" / "inner" / "two").read_text() == "inner/two"


def test_lines_are_appended_and_a_line_that_was_cut_off_is_ended(tmp_path: Path, synced: list[Path]) -> None:
    path = tmp_path / "ledger"
    append_line(path, b"one")
    with path.open("ab") as file:
        file.write(b"tw")
    append_line(path, b"three")
    assert path.read_bytes() == b"one\ntw\nthree\n"
    assert synced == [path, tmp_path] * 2


def test_a_secret_is_private_from_its_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, modes, fsync = tmp_path / "key", list[int](), os.fsync
    path.write_text("open to all")
    path.with_name("key.part").write_text("left by a crash")

    def spy(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_secret(path, "secret")
    assert (modes[0], path.stat().st_mode & 0o777, path.read_text()) == (0o600, 0o600, "secret")


def test_a_secret_that_is_there_is_not_drawn_again(tmp_path: Path, synced: list[Path]) -> None:
    path = tmp_path / "keys" / "store.key"
    create_secret(path, "first")
    create_secret(path, "second")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("first", 0o600)
    assert [found.name for found in path.parent.iterdir()] == ["store.key"]
    assert synced[-1] == path.parent


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "copy its folder"),
        (errno.EISDIR, "move that folder away"),
        (errno.ENOSPC, "make room and repeat the command, or go on with --resume if a run"),
    ],
)
def test_the_remedy_fits_what_is_wrong(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FedoelError, match=f"cannot be written: .*; {remedy}"):
        write_whole(tmp_path / "report.html", b"one")
    assert list(tmp_path.iterdir()) == [], "what was written of it takes no room"
