"""A disk that is full at one write after the other."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.durable_steps import STEPS, Steps, drafts_alike

NO_ROOM = os.strerror(errno.ENOSPC)


class FullDisk(Steps):
    """Refuses everything below a folder that needs room, each the first time that it is tried.

    A file or a folder is made, opened to be written, forced to the disk or renamed, or SQLite commits. What was tried
    is in `refused`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root.resolve())
        self.refused = dict[str, None]()

    def watch(self) -> None:
        """Replace the calls by some that may be refused."""
        super().watch()
        folder, make, write = os.mkdir, os.open, io.open

        def folder_made(path: Any, *rest: Any, **named: Any) -> None:
            new = "dir_fd" not in named and not os.path.exists(path)
            self.step("mkdir", Path(path), folder, path, *rest) if new else folder(path, *rest, **named)

        def made(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            new = flags & os.O_CREAT and not os.path.exists(path)
            call = partial(self.step, "make", Path(path), make) if new else make
            return int(call(path, flags, *rest, **named))

        def written(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return write(file, mode, *rest, **named)
            return self.step("write", Path(file), write, file, mode, *rest, **named)

        os.mkdir, os.open, io.open = folder_made, made, written

    def step(self, name: str, path: Path, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Refuse a call if it is the first of its kind."""
        path = path.absolute()
        if path.is_relative_to(self.root):
            what = f"{name} {drafts_alike(str(path.relative_to(self.root)))}"
            if what not in self.refused:
                self.refused[what] = None
                if name == "commit":
                    raise sqlite3.OperationalError("database or disk is full")
                raise OSError(errno.ENOSPC, NO_ROOM)
        return call(*arguments, **named)


class ReadOnlyDisk(FullDisk):
    """Refuses everything below a folder that changes something."""

    def step(self, name: str, path: Path, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Refuse a call."""
        if path.absolute().is_relative_to(self.root):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return call(*arguments, **named)


@contextmanager
def full_disk(root: Path, kind: type[FullDisk] = FullDisk) -> Iterator[FullDisk]:
    """Let the disk with a folder be full at every write once, or read-only, within a ``with`` block."""
    disk = kind(root)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in [*((os, step) for step in (*STEPS, "mkdir", "open")), (io, "open"), (sqlite3, "connect")]:
            patch.setattr(module, name, getattr(module, name))  # put back at the end
        disk.watch()
        yield disk
