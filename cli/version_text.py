"""What the verbs about a run's versions print."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .flags import path
from .prompts import printable

if TYPE_CHECKING:
    from ..protocol.records.journal import Entry
    from ..protocol.records.summary import Lesson, Stats
    from ..server.run_location import RunLocation

LESSONS = 12  # that are printed of a version, or of a difference


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of a run, or of a fleet's server."""
    parser.add_argument("folder", type=path, metavar="FOLDER", help="folder of a run, or of a fleet's server")


def add_version(parser: argparse.ArgumentParser, name: str = "version", *, optional: str = "") -> None:
    """Declare a version; `optional` says which one it is by default."""
    text = "name of a version, or how it begins"
    if optional:
        parser.add_argument(name, nargs="?", default="", metavar="VERSION", help=f"{text} (default: {optional})")
    else:
        parser.add_argument(name, metavar=name.upper() if len(name) == 1 else "VERSION", help=text)


def located(arguments: argparse.Namespace) -> RunLocation:
    """Return the run in the folder; raises `ConfigError` if there is none."""
    from ..server.run_location import locate

    return locate(arguments.folder)


def print_current(entry: Entry) -> int:
    """Print which version an operator's choice has made current, and return the exit status."""
    print(f"{entry.values['version']} is current: {entry.values['reason']}")
    return 0


def won(stats: Stats | None) -> str:
    """Say how often a version won, with its interval."""
    if stats is None:
        return "not measured"
    return f"{stats.win_rate:.0%} [{stats.low:.0%}, {stats.high:.0%}] of {stats.episodes}"


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines, in columns with two spaces between them; the last column is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def lesson_lines(lessons: Sequence[Lesson]) -> Iterator[str]:
    """Yield the strongest lessons of a version."""
    strongest = sorted(lessons, key=lambda lesson: -abs(lesson.weight))
    yield from (f"  {lesson.weight:+.2f}  {printable(lesson.tactic)}" for lesson in strongest[:LESSONS])
    if len(lessons) > LESSONS:
        yield f"  and {len(lessons) - LESSONS} weaker ones"


def difference_lines(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[str]:
    """Yield where the weights of lessons differ most."""
    changes = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in {**before, **after}}
    strongest = sorted((name for name in changes if abs(changes[name]) > 5e-3), key=lambda name: -abs(changes[name]))
    for name in strongest[:LESSONS]:
        yield f"  {before.get(name, 0.0):+.2f} -> {after.get(name, 0.0):+.2f}  {printable(name)}"
    if len(strongest) > LESSONS:
        yield f"  and {len(strongest) - LESSONS} smaller differences"
    if not strongest:
        yield "  none"
