"""The versions of a run on the page, and the commands that an operator may copy: the page itself changes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...server.version_list import KnownVersion, VersionList
from ..summary import percent
from .tables import Table

CHOSEN = "An operator has chosen the current version; devices take it with the run's next message."


@dataclass(frozen=True, slots=True)
class Command:
    """A command to copy, and what it does."""

    purpose: str
    text: str


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions and candidates, what there is to say about the current one, and commands."""

    table: Table
    note: str
    commands: tuple[Command, ...]


def versions_of(folder: Path, known: VersionList) -> Versions:
    """Return what `fedoel versions` prints, without the reasons, which stand with the decisions.

    Parameters
    ----------
    folder
        Folder of the run or of the fleet's server, as commands name it.
    """
    current = known.current
    rows = [_row(known, version, current) for version in reversed(known.versions)]
    head = ("", "version", "parent", "cycle", "decision", "won", "weights")
    note = CHOSEN if known.journal.pending else ""
    return Versions(Table("Versions, newest first", head, rows, decisions=4), note, tuple(_commands(folder, known)))


def _row(known: VersionList, version: KnownVersion, current: str) -> list[object]:
    share = "" if known.reach is None else f", for {known.reach:.3g} of the fleet"
    mark = f"current{share}" if version.name == current else ""
    won = percent(version.results) if version.results else "not measured"
    folder = known.place.versions / version.name
    weights = "stored" if known.has_weights(version.name) else "removed" if folder.exists() else "-"
    return [mark, version.name, version.parent or "-", version.cycle, known.decision_on(version), won, weights]


def _commands(folder: Path, known: VersionList) -> Iterator[Command]:
    place, current = shlex.quote(str(folder)), known.current
    parents = {version.name: version.parent for version in known.versions}
    if parent := parents.get(current, ""):
        yield Command("go back to the version before", f"fedoel rollback {place}")
        yield Command("read answers before and after", f"fedoel diff {place} {parent} {current}")
    if any(version.decision == "waiting" and version.parent == current for version in known.versions):
        yield Command("approve the candidate that waits", f"fedoel approve {place}")
    if current:
        game, both = f"fedoel play --run {place} --seed 0", " before and after" * bool(parent)
        yield Command(f"watch one game turn by turn, with probabilities{both}", game + " --before" * bool(parent))
    yield Command("check that the run is as its journal says", f"fedoel verify {place}")
