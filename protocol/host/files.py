"""Durable writes: after a crash or a power cut, a file holds its old content or its new content, and nothing between.

A rename is atomic, but it survives a power cut only after the content of the file and the entry in its folder are on
the disk: both are forced there with `fsync` (see fsync(2) and rename(2)).

Files with private keys are written readable by their owner only, and checked for that before they are read. Folders of
devices, servers and keys can be entered by their owner only.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigError, FedoelError

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
REMEDIES = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "copy its folder to where you may write"),
    errno.EISDIR: "move that folder away and go on with --resume",
}
MAKE_ROOM = "make room and repeat the command, or go on with --resume if a run was interrupted"
BLOCK = 65_536  # bytes that are read at a time from the end of a file


def write_whole(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Replace a file of a run as `replace_file` does.

    Raises
    ------
    FedoelError
        If the disk refuses it; the old content stays.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, MAKE_ROOM)
        raise FedoelError(f"{path} cannot be written: {error.strerror}; {remedy}") from error


def replace_file(path: Path, content: bytes | str | Iterable[bytes], *, secret: bool = False) -> None:
    """Write ``PATH.part`` in the same folder, force it to the disk, and rename it to `path`.

    Parameters
    ----------
    path
        Its folder is made if it does not exist.
    content
        Bytes, whole or in parts, or text to be written as UTF-8.
    secret
        Whether only the file's owner may read it, and enter its folder if that is made.

    Raises
    ------
    OSError
        If the disk refuses it; the old content stays.
    """
    part = path.with_name(f"{path.name}.part")
    make_folder(path.parent, private=secret)
    try:
        if secret:  # the mode is set before there is any content
            part.unlink(missing_ok=True)
            part.touch(PRIVATE_FILE, exist_ok=False)
        with part.open("wb") as file:
            content = content.encode() if isinstance(content, str) else content
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # what is left of it takes the room that is missing
        raise
    sync(path.parent)


def move_into_place(draft: Path, path: Path) -> None:
    """Force a file, or a folder and everything in it, to the disk, and rename it; raises `OSError` as `os.replace`."""
    for written in (*draft.rglob("*"), draft):
        sync(written)
    os.replace(draft, path)
    sync(path.parent)


def append_line(path: Path, line: bytes, *, secret: bool = False) -> None:
    """Append a line to a file and force it to the disk; raises `OSError` if the disk refuses it.

    A last line that a crash has cut off is ended first. Only the owner of a secret file may read it.
    """
    make_folder(path.parent)
    if secret:
        make_private_file(path)
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def torn_line(path: Path) -> bytes:
    """Return what stands behind the last end of a line; empty if the file ends with one. Raises `OSError`."""
    tail = b""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end and b"\n" not in tail:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            tail, end = file.read(end - begin) + tail, begin
    return tail.rpartition(b"\n")[2]


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a crash has torn, if there is a file with one; raises `OSError`."""
    if path.exists() and (tail := torn_line(path)):
        cut_torn_line(path, tail)


def cut_torn_line(path: Path, tail: bytes) -> None:
    """Cut off what `torn_line` returned. In place, without a copy: this has to work on a full disk, too."""
    os.truncate(path, path.stat().st_size - len(tail))


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make a folder and the folders above it, and force their entries to the disk; raises `OSError`.

    Only its owner may enter a private folder. One that exists is left as it is.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(PRIVATE_FOLDER if private else 0o777, parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def check_place(folder: Path, setting: str, writable: bool = False) -> None:
    """Check that a folder is one, or that nothing is in the way of making it.

    Parameters
    ----------
    writable
        Whether it has to be possible to make files in it.

    Raises
    ------
    ConfigError
        If a file has its name, or the name of a folder above it; or if it cannot be written.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ConfigError(f"{setting}: {nearest} is not a folder; choose another one")
    if writable and not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{setting}: {nearest} cannot be written; choose another one")


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, and take the rights of others from one that exists.

    Raises
    ------
    ConfigError
        If it is another user's.
    OSError
        If the folder cannot be made.
    """
    make_folder(folder, private=True)
    try:
        if exposed(folder):
            folder.chmod(PRIVATE_FOLDER)
    except PermissionError as error:
        raise ConfigError(f"others may enter {folder}, which is another user's: choose another folder") from error


def make_private_file(path: Path) -> None:
    """Make a file that only its owner may read, and take the rights of others from one that exists.

    This is for files that grow, which hold secrets but no keys: an exposed key is refused (`check_secret`). Raises
    `OSError` if the file cannot be made, or is another user's.
    """
    if not path.exists():
        path.touch(PRIVATE_FILE)
    if exposed(path):
        path.chmod(PRIVATE_FILE)


def exposed_among(paths: Iterable[Path]) -> list[Path]:
    """Return those of some files and folders, as far as they exist, to which others than their owner have access."""
    return [path for path in paths if path.exists() and exposed(path)]


def exposed(path: Path) -> bool:
    """Whether anybody but its owner may read a file or enter a folder; raises `OSError` if it does not exist."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def check_secret(path: Path, otherwise: str) -> None:
    """Check that only its owner has access to a key's file.

    Parameters
    ----------
    path
        The file.
    otherwise
        What to do if they have, as the error says it.

    Raises
    ------
    ConfigError
        If others have access.
    OSError
        If there is no file.
    """
    if exposed(path):
        raise ConfigError(f"others may read {path}: chmod 600 it, and {otherwise} if they did")


def create_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, unless it exists already; raises `OSError` if the disk refuses it.

    Of two processes that do this at once, one succeeds, and the other leaves the file as it is.
    """
    make_folder(path.parent, private=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        replace_file(draft, text, secret=True)
        with suppress(FileExistsError):
            os.link(draft, path)
    sync(path.parent)
