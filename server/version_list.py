"""A run's versions as an operator sees them: what was promoted and what was not, why, and which one is current.

Everything is read from the run's folder: manifests, the summary's records, and the journal where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..protocol.errors import FedoelError, VersionError
from ..protocol.records.journal import CURRENT, TAKEN
from ..protocol.records.summary import CycleRecord, Stats
from ..protocol.versions import Manifest
from .journal import CYCLE, OPERATOR, Journal
from .learner import Adapter
from .registry import MANIFEST, WEIGHTS, load_adapter, load_manifest
from .run_location import RunLocation
from .summary import NAME, read_summary

MADE = ("warm-start", "promoted", "averaged")  # decisions that make a version
REFUSED = ("rejected", "waiting")  # decisions about a candidate that did not become one
TRAINED_IN = ("distil-half-*.npz", "distil.npz", "average.npz", "warm-start.npz")  # phases that leave an adapter


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """One version, or a candidate that was not promoted.

    Parameters
    ----------
    name, parent
        Its own name, and that of the version that it was distilled from; empty parent for the first.
    cycle
        The cycle that made it.
    decision, reason
        What became of it, as in `CycleRecord`.
    results
        What it won: as a version in the cycle's report, as a candidate in the gate; None where nobody measured it.
    record
        The record of its cycle; None if the summary has none.
    """

    name: str
    parent: str
    cycle: int
    decision: str
    reason: str
    results: Stats | None
    record: CycleRecord | None


@dataclass(frozen=True)
class VersionList:
    """The versions of a run on disk."""

    place: RunLocation
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "journal", self.place.journal())

    @cached_property
    def records(self) -> Sequence[CycleRecord]:
        """The summary's records of finished cycles; none if there is no summary yet."""
        return read_summary(self.place.run).cycles if (self.place.run / NAME).exists() else ()

    @property
    def current(self) -> str:
        """The current version; empty before the first."""
        return self.journal.current or (self.records[-1].version if self.records else "")

    @property
    def chosen(self) -> KnownVersion | None:
        """What an operator has made current since the last cycle; None if the version that it ended with is current.

        Raises
        ------
        VersionError
            If the run has no such version.
        """
        newest = self.journal.last(CURRENT, TAKEN)
        if newest is None or newest.values.get("by") == CYCLE or not self.records:
            return None
        version = str(newest.values["version"])
        return None if version == self.records[-1].version else self.find(version)

    @property
    def reach(self) -> float | None:
        """Share of the fleet that the current version goes to in a staged rollout; None if that is all of it."""
        newest = self.records[-1] if self.records else None
        return newest.reach if newest and newest.version == self.current else None

    @cached_property
    def versions(self) -> list[KnownVersion]:
        """All versions and candidates, in the order in which cycles made them."""
        known, parent = list[KnownVersion](), ""
        for record in self.records:
            if record.decision in MADE:
                known.append(_version(record, self._parent_of(record.version, parent)))
            elif record.decision in REFUSED and (name := self.candidate_of(record)):
                known.append(_candidate(record, name, record.version))
            parent = record.version
        return known

    def decision_on(self, version: KnownVersion) -> str:
        """Return what became of a version, with what an operator has made of a candidate that waited.

        That is ``approved``, or ``passed-over`` if another version than its parent is current and it never was.
        """
        if version.decision != "waiting":
            return version.decision
        chosen = (str(e.values["version"]) for e in self.journal.of_kind(CURRENT) if e.values["by"] == OPERATOR)
        if version.name in chosen:
            return "approved"
        return "waiting" if version.parent == self.current else "passed-over"

    def find(self, name: str) -> KnownVersion:
        """Return the version whose name begins with a text, or the current one for an empty text.

        Raises
        ------
        VersionError
            If there is none, or several.
        """
        wanted = name or self.current
        matches = {version.name: version for version in self.versions if version.name.startswith(wanted)}
        if wanted in matches:
            return matches[wanted]
        if len(matches) == 1 and wanted:
            return next(iter(matches.values()))
        several = f"several versions: {', '.join(sorted(matches))}" if wanted and matches else "no version"
        raise VersionError(f"{wanted!r} is {several} of {self.place.run}; see `fedoel versions`")

    def lineage(self, name: str) -> list[str]:
        """Return a version, its parent, and so on to the first."""
        parents = {version.name: version.parent for version in self.versions}
        names = [name]
        while (parent := parents.get(names[-1], "")) and parent not in names:
            names.append(parent)
        return names

    def manifest(self, name: str) -> Manifest | None:
        """Return a version's signed manifest; None if the version has no folder.

        Raises
        ------
        VersionError
            If the signature does not verify.
        """
        folder = self.place.versions / name
        return load_manifest(folder, self.place.fleet_key) if (folder / MANIFEST).exists() else None

    def has_weights(self, name: str) -> bool:
        """Whether a version's weights are in the registry."""
        return (self.place.versions / name / WEIGHTS).exists()

    def adapter(self, version: KnownVersion) -> Adapter | None:
        """Return a version's weights, from the registry or from the cycle that trained it; None if they are in neither.

        Raises
        ------
        VersionError
            If they do not verify.
        """
        if self.has_weights(version.name):
            return load_adapter(self.place.versions / version.name, self.place.fleet_key)[1]
        if (path := self.checkpoint_of(version.cycle, version.name)) is None:
            return None
        from .cycle.distil import TRAINED
        from .cycle.phases import load_phase

        return TRAINED.read(load_phase(self.place.run, version.cycle, path.stem)).adapter

    def candidate_of(self, record: CycleRecord) -> str:
        """Return the name of the candidate that a cycle tried last; empty if it is not known."""
        decided = self.journal.decision(record.cycle)
        if decided is not None:
            return str(decided.values["candidate"])
        path = self.checkpoint_of(record.cycle)
        return "" if path is None else version_in(path)

    def checkpoint_of(self, cycle: int, name: str = "") -> Path | None:
        """Return the file of a cycle that holds an adapter, of this version if one is named; None if there is none."""
        from .cycle.phases import cycle_folder

        folder = cycle_folder(self.place.run, cycle)
        paths = [path for pattern in TRAINED_IN for path in sorted(folder.glob(pattern), reverse=True)]
        return next((path for path in paths if not name or version_in(path) == name), None)

    def _parent_of(self, name: str, otherwise: str) -> str:
        try:
            return Manifest.from_json((self.place.versions / name / MANIFEST).read_text(encoding="utf-8")).parent
        except (OSError, VersionError):
            return otherwise


def _version(record: CycleRecord, parent: str) -> KnownVersion:
    results = record.held_out if record.held_out.episodes else None
    return KnownVersion(record.version, parent, record.cycle, record.decision, record.reason, results, record)


def _candidate(record: CycleRecord, name: str, parent: str) -> KnownVersion:
    tried = record.gate.candidate if record.gate else None
    results = tried if tried is not None and tried.episodes else None
    return KnownVersion(name, parent, record.cycle, record.decision, record.reason, results, record)


def version_in(path: Path) -> str:
    """Return the version whose adapter is in the file of a phase; empty if it holds none."""
    from .cycle.phases import load_phase

    try:
        values = load_phase(path.parents[2], int(path.parent.name.removeprefix("cycle-")), path.stem).values
    except FedoelError:
        return ""
    return str(values.get("version", ""))
