"""The end of a cycle in the journal: what was decided, and digests of everything that the cycle left on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...protocol.records.journal import CURRENT, DECIDED
from ...protocol.records.json_codec import to_json
from ...protocol.records.summary import CycleRecord
from ..journal import CYCLE, EVENTS, Journal, digest_of
from ..registry import VERSIONS
from ..safeguards import LEDGER
from . import collect
from .phases import cycle_folder
from .run import Run

LOGS = (EVENTS, LEDGER)  # files that only grow; an entry covers what they have gained since the entry before


def note(run: Run, journal: Journal, record: CycleRecord, candidate: str) -> None:
    """Write a cycle's end into the journal, unless it is there already.

    Parameters
    ----------
    candidate
        The version that was tried; empty if none was.
    """
    earlier, record_digest = journal.decision(record.cycle), digest_of_record(record)
    if earlier is not None and earlier.values["record"] == record_digest:
        return
    new = record.cycle > journal.finished
    if new and record.version != journal.current and not journal.pending:
        journal.add(CURRENT, version=record.version, by=CYCLE, cycle=record.cycle, reason=record.reason)
    folder, version = cycle_folder(run.folder, record.cycle), run.folder / VERSIONS / record.version
    tried = run.folder / VERSIONS / candidate if candidate else version
    paths = sorted(path for place in {folder, version, tried} for path in place.glob("*") if path.suffix != ".part")
    journal.add(
        DECIDED, cycle=record.cycle, decision=record.decision, reason=record.reason, version=record.version,
        candidate=candidate, exchanges=_exchanges(run, record.cycle), members=len(run.safeguards.members),
        secure=run.secure, epsilon=record.epsilon, record=record_digest,
        files={path.relative_to(run.folder).as_posix(): digest_of(path) for path in paths},
        logs={name: _grown(run.folder / name, journal, name) for name in LOGS},
    )  # fmt: skip


def digest_of_record(record: CycleRecord) -> str:
    """Return the SHA-256 of a cycle's record in the summary, in hexadecimal."""
    return hashlib.sha256(json.dumps(to_json(record), sort_keys=True).encode()).hexdigest()


def _exchanges(run: Run, cycle: int) -> list[dict[str, Any]]:
    """Return the version that each exchange of a cycle was about, and the number of devices in its aggregate."""
    values = [run.phases.load(cycle, collect.numbered("collect", e)).values for e in collect.finished(run, cycle)]
    return [{"version": each.get("version", ""), "cohort": each["cohort"], "noise": each["noise"]} for each in values]


def _grown(path: Path, journal: Journal, name: str) -> dict[str, Any]:
    """Return which bytes of a log are new since the last entry, and their SHA-256."""
    start = max((entry.values["logs"][name]["end"] for entry in journal.of_kind(DECIDED)), default=0)
    end = path.stat().st_size if path.exists() else 0
    return {"start": start, "end": end, "sha256": digest_of(path, start, end)}
