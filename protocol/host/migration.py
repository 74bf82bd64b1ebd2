"""Migration of a folder from the formats of an earlier release: what would change, and doing it.

Each step is atomic: a file is written beside the old one and takes its place, a line is appended, or a database is
changed in one transaction. A migration that was interrupted is run again, and does what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .lock import one_owner, owner

IN_USE = "uses this folder: stop it first, and migrate while nothing runs"


@dataclass(frozen=True, slots=True)
class Step:
    """One change: what it does in words, and the work."""

    what: str
    work: Callable[[], object]


def migrate(locks: Sequence[Path], steps: Callable[[], Iterable[Step]], dry_run: bool) -> list[str]:
    """Do the steps of a migration, and return what was done, or would be.

    Parameters
    ----------
    locks
        Files that processes lock while they use the folder.
    steps
        Returns the steps that are needed, once nobody else uses the folder.

    Raises
    ------
    ConfigError
        If a process uses the folder.
    """
    if dry_run:
        if holder := next(filter(None, map(owner, locks)), ""):
            raise ConfigError(f"{holder} {IN_USE}")
        return [step.what for step in steps()]
    done = list[str]()
    with ExitStack() as held:
        for lock in locks:
            held.enter_context(one_owner(lock, IN_USE))
        for step in list(steps()):
            step.work()
            done.append(step.what)
    return done
