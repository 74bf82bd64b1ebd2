"""Whether a process of the device has died: was killed, ran out of memory, or lost its power.

A process at work holds a lock on a mark, a file of its own, and removes the file at its end. The kernel lets go of the
lock whatever ends the process, so a mark that nobody holds is of one that has died. That mark becomes the file `DIED`,
which is empty until it is told, and then names what it was told for: all that is asked in one cycle gets one answer,
and the cycle after it another one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...protocol.errors import ConfigError
from ...protocol.host.files import replace_file
from ...protocol.host.lock import in_turn, one_owner, owner

DIED, MARK, LOCK = "died", ".mark", "lock"


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """Hold a mark for the length of a ``with`` block. If the disk refuses it, the device works nonetheless.

    Parameters
    ----------
    folder
        Where the marks of a device are.
    """
    mark = folder / f"{secrets.token_hex(8)}{MARK}"
    with ExitStack() as stack:
        with suppress(ConfigError, OSError), in_turn(folder / LOCK):  # nobody looks at a mark before it is held
            _look(folder)
            stack.enter_context(one_owner(mark, "has taken the mark of another process: start this device again"))
            stack.callback(mark.unlink, missing_ok=True)
        yield


def died(folder: Path, asked: str) -> bool:
    """Return whether a process has died, unless that was told for something else already.

    Parameters
    ----------
    asked
        What it is told for.
    """
    file = folder / DIED
    with suppress(ConfigError, OSError, UnicodeDecodeError), in_turn(folder / LOCK):
        _look(folder)
        if file.exists():
            told = file.read_text(encoding="utf-8")
            if told in ("", asked):
                replace_file(file, asked)
                return True
            file.unlink()
    return False


def forget(folder: Path) -> None:
    """Remove the marks of processes that were ended because the device was told to stop."""
    with suppress(ConfigError, OSError), in_turn(folder / LOCK):
        for mark in _left(folder):
            mark.unlink(missing_ok=True)


def _look(folder: Path) -> None:
    """Note that a process has died, if a mark is left; called in turn."""
    for mark in _left(folder):
        with suppress(FileNotFoundError):  # its process has removed it this moment
            mark.replace(folder / DIED)
            os.truncate(folder / DIED, 0)


def _left(folder: Path) -> list[Path]:
    return [mark for mark in folder.glob(f"*{MARK}") if not owner(mark)]
