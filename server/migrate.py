"""What the folder of a run, or of a fleet's server, of an earlier release needs to be as today's are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..protocol.formats import KEY, RECORDS
from ..protocol.host.migration import Step
from .fleet import newest_log
from .journal import NAME as JOURNAL
from .journal import read_lines
from .log import NAME as LOG
from .log import FleetLog
from .operate.folder import ServerFolder
from .run_folder import LOCK, STORED
from .run_location import RunLocation, locate
from .summary import NAME as SUMMARY
from .summary import read_summary, write_summary


def locks_of_run(folder: Path) -> list[Path]:
    """Return what processes lock that change the folder of a run."""
    return [folder / LOCK]


def locks_of_server(folder: ServerFolder) -> list[Path]:
    """Return what processes lock that change a server's folder."""
    return [folder.lock, folder.roll_lock, *(locks_of_run(folder.run) if folder.run.exists() else [])]


def steps_of_server(folder: ServerFolder) -> Iterator[Step]:
    """Yield the steps that a server's folder needs; raises as `steps_of_run`."""
    if not FleetLog(folder.fleet).begun:
        yield Step(f"fleet/{LOG}: begun with the list of members", partial(newest_log, folder.fleet))
    if (folder.run / STORED).exists():
        yield from steps_of_run(locate(folder.path))


def steps_of_run(place: RunLocation) -> Iterator[Step]:
    """Yield the steps that a run's folder needs.

    Only a run without a journal has records that may be written again: a journal holds the digests of the others.

    Raises
    ------
    ConfigError
        If a file is of a later release, or damaged.
    """
    _ = place.config  # refuses settings of a later release
    if read_lines(place.run):
        _ = place.journal().entries
        return
    summary = place.run / SUMMARY
    if summary.exists():
        whole = read_summary(place.run)
        number = json.loads(summary.read_bytes()).get(KEY, 1)
        if number != RECORDS.current:
            yield Step(f"{SUMMARY}: {KEY} {number} -> {RECORDS.current}", partial(write_summary, place.run, whole))
    yield Step(f"{JOURNAL}: begun after the cycles that have ended", place.opened_journal)
