"""The durable steps of a process: counted, named, and able to kill it. `benchmarks/crash_points.py` and tests use them.

A durable step is a call that a power cut or `kill -9` may separate from the next: a file or a folder is forced to the
disk (fsync), renamed (replace), cut (truncate) or linked (link), or SQLite commits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sqlite3
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

STEPS = ("fsync", "replace", "truncate", "link")


class Steps:
    """Counts and names the durable steps of this process, and kills it at one of them, or lets that step fail.

    Parameters
    ----------
    root
        Steps elsewhere do not count.
    at, behind
        Number of the step at which something happens (nothing if it is -1), and whether that is behind it.
    happens
        Kills the process, or raises an error; it is told the name of the step.
    look
        Whether to note at every moment whether the files have changed since the moment before, in `changes`: two a
        step.
    """

    def __init__(
        self, root: Path, at: int = -1, behind: bool = False, look: bool = False,
        happens: Callable[[str], None] = lambda name: os.kill(os.getpid(), signal.SIGKILL),
    ) -> None:  # fmt: skip
        self.root, self.at, self.behind, self.names, self.happens = root, at, behind, list[str](), happens
        self.changes, self._look, self._files = list[bool](), look, b""

    def watch(self) -> None:
        """Replace the calls by some that count."""
        for name in STEPS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        steps = self

        class Connection(sqlite3.Connection):
            def __init__(self, path: Any, *rest: Any, **named: Any) -> None:
                super().__init__(path, *rest, **named)
                self.path = Path(path)

            def __exit__(self, *error: Any) -> Any:
                return steps.step("commit", self.path, super().__exit__, *error)

        sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _counted(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(what: Any, *rest: Any, **named: Any) -> Any:
            path = Path(os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else (rest or [what])[0])
            return self.step(name, path, step, what, *rest, **named)

        return counted

    def step(self, name: str, path: Path, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call that makes something durable at a path."""
        if not path.is_relative_to(self.root):
            return call(*arguments, **named)
        here = len(self.names) == self.at
        self.names.append(f"{name} {drafts_alike(str(path.relative_to(self.root)))}")
        if here and not self.behind:
            self.happens(name)
        self._note_change()
        result = call(*arguments, **named)
        if here and self.behind:
            self.happens(name)
        self._note_change()
        return result

    def _note_change(self) -> None:
        if self._look:
            before, self._files = self._files, digest_of(self.root)
            self.changes.append(self._files != before)


def digest_of(root: Path) -> bytes:
    """Return a digest of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(f"{path}\0".encode() + (hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""))
    return digest.digest()


def drafts_alike(path: str) -> str:
    """Leave out what is random in a path: names of versions and of temporary folders."""
    return re.sub(r"making-\w+|\b[0-9a-f]{16}\b|\.[\w.]+-\w{8}(?=/|$)", "*", path)


def in_process(work: Callable[[], Any]) -> tuple[int, Any]:
    """Call a function in a process of its own; return how that ended, and the JSON of what the function returned."""
    with tempfile.NamedTemporaryFile(mode="r+", encoding="utf-8") as answer:
        if not (child := os.fork()):
            try:
                Path(answer.name).write_text(json.dumps(work()), encoding="utf-8")
                os._exit(0)
            except BaseException:
                Path(answer.name).write_text(json.dumps(traceback.format_exc()[-600:]), encoding="utf-8")
                os._exit(1)
        _, status = os.waitpid(child, 0)
        text = answer.read()
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else None
