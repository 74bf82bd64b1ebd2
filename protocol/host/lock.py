"""Locks on folders that one process at a time may change: flock(2) on a file in the folder.

The kernel lets go of such a lock when the process that holds it ends, whatever ends it: no lock is ever stale. The file
stays; it holds the process id and the host of its last owner. Removing it would let two processes lock two files.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError
from .files import make_folder

# `owner` holds a lock for an instant to find out whether it is free; nobody may be refused because of that.
ATTEMPTS, PAUSE_SECONDS = 5, 0.1


@contextmanager
def one_owner(lock: Path, refusal: str) -> Iterator[None]:
    """Own a folder for the length of a ``with`` block.

    Parameters
    ----------
    lock
        A file in the folder; both are made if they do not exist.
    refusal
        What the owner does and what to do about it, e.g. ``runs this device already: stop it first``; the error says it
        behind the owner's name.

    Raises
    ------
    ConfigError
        If another process owns the folder, or the folder cannot be written or locked.
    """
    descriptor = _open(lock)
    try:
        if not _free(descriptor, fcntl.LOCK_EX, lock, ATTEMPTS):
            raise ConfigError(f"{_name(descriptor)} {refusal}")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for the same file, then run the block; raises `ConfigError`."""
    descriptor = _open(lock)
    try:
        _lock(descriptor, fcntl.LOCK_EX, lock)
        yield
    finally:
        os.close(descriptor)


def owner(lock: Path) -> str:
    """Return who is in a `one_owner` block for a file, as ``process 17``; empty if nobody is."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return "" if _free(descriptor, fcntl.LOCK_SH, lock, 1) else _name(descriptor)
    finally:
        os.close(descriptor)


def _open(lock: Path) -> int:
    try:
        make_folder(lock.parent)
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{lock.parent} cannot be written: {error.strerror}; choose another folder") from error


def _free(descriptor: int, kind: int, lock: Path, attempts: int) -> bool:
    """Take a lock unless another process keeps it during all attempts."""
    for attempt in range(attempts):
        try:
            _lock(descriptor, kind | fcntl.LOCK_NB, lock)
            return True
        except BlockingIOError:
            if attempt + 1 < attempts:
                time.sleep(PAUSE_SECONDS)
    return False


def _lock(descriptor: int, kind: int, lock: Path) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        raise ConfigError(
            f"{lock.parent} cannot be locked against other processes: {error.strerror}; choose a folder on a file "
            "system that has locks, such as a local disk"
        ) from error


def _name(descriptor: int) -> str:
    """Name the process that a lock's file names."""
    pid, _, host = os.pread(descriptor, 300, 0).decode("utf-8", "replace").partition(" ")
    if not pid.isdecimal():  # it is just beginning or ending
        return "another process"
    return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"
