"""The end of a cycle in the journal: what was decided, and digests of everything that the cycle left on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...protocol.errors import FedoelError
from ...protocol.fleet.membership import RunMode
from ...protocol.formats import KEY
from ...protocol.records.journal import CURRENT, DECIDED, ENDED
from ...protocol.records.json_codec import to_json
from ...protocol.records.summary import Summary
from ..events import LOG
from ..journal import CYCLE, Journal, digest_of
from ..registry import VERSIONS
from ..safeguards import LEDGER
from . import collect
from .phases import cycle_folder
from .run import Run

LOGS = (LOG, LEDGER)  # files that only grow; an entry covers what they have gained since the entry before


def note(run: Run, journal: Journal, summary: Summary, candidate: str) -> None:
    """Write the end of a summary's last cycle into the journal, unless it is there already.

    Parameters
    ----------
    candidate
        The version that was tried; empty if none was.
    """
    record = summary.cycles[-1]
    table = to_json(summary)
    # Of what is written, and not of records: a later fedoel may know more fields, and must come to the same digests.
    digests = {"record": digest_of_table(table["cycles"][-1]), "summary": digest_of_table(head_of(table))}
    earlier = journal.decision(record.cycle)
    if earlier is not None and digests.items() <= earlier.values.items():
        return
    new = record.cycle > journal.finished
    if new and record.version != journal.current and not journal.pending:
        journal.add(CURRENT, version=record.version, by=CYCLE, cycle=record.cycle, reason=record.reason)
    folder, version = cycle_folder(run.folder, record.cycle), run.folder / VERSIONS / record.version
    tried = run.folder / VERSIONS / candidate if candidate else version
    paths = sorted(path for place in {folder, version, tried} for path in place.glob("*") if path.suffix != ".part")
    journal.add(
        DECIDED, cycle=record.cycle, decision=record.decision, reason=record.reason, version=record.version,
        candidate=candidate, exchanges=_exchanges(run, record.cycle), members=_members(run),
        secure=run.secure, epsilon=record.epsilon, **digests,
        files={path.relative_to(run.folder).as_posix(): digest_of(path) for path in paths},
        logs=_grown(run.folder, journal),
    )  # fmt: skip


def note_end(run: Run, journal: Journal) -> None:
    """Write into the journal that the run has come to its end, with what its logs have gained since the last cycle."""
    journal.add(ENDED, logs=_grown(run.folder, journal))


def check_ledger(run: Run, journal: Journal) -> None:
    """Check that a private run goes on with all that it has spent.

    Raises
    ------
    FedoelError
        If the ledger is shorter than the journal says, or knows of fewer releases than the run has kept: it is missing,
        was cut, or is another run's.
    """
    if not run.safeguards.noisy:
        return
    path, covered, ledger = run.folder / LEDGER, journal.last(DECIDED, ENDED), run.safeguards.ledger
    cut = covered is not None and path.stat().st_size < covered.values["logs"][LEDGER]["end"]
    whole = ledger.spent(0) == 0  # a truncated entry counts for every cycle
    cycles = range(1, run.config.cycles + 1)
    released = ((cycle, sum(each["cohort"] > 0 for each in _exchanges(run, cycle))) for cycle in cycles)
    forgotten = whole and any(ledger.spent(c) - ledger.spent(c - 1) < made for c, made in released if made)
    if cut or forgotten:
        raise FedoelError(
            f"the privacy ledger {path} does not hold all that this run has spent: put the file back as it was, or "
            "start another run"
        )


def digest_of_table(table: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a table as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def head_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``summary.json`` says of a run, less its cycles, machines, and the floor that is another run's."""
    head = {name: value for name, value in summary.items() if name not in ("cycles", "machines", KEY)}
    return {**head, "floors": {name: floor for name, floor in summary["floors"].items() if name != "tactics_only"}}


def _members(run: Run) -> int:
    """Return the size of the fleet; a long list is only read where devices check it, too."""
    listed = run.secure or run.safeguards.mode is RunMode.DEPLOYMENT
    return len(run.safeguards.members) if listed else run.config.clients


def _exchanges(run: Run, cycle: int) -> list[dict[str, Any]]:
    """Return the version that each exchange of a cycle was about, and the number of devices in its aggregate."""
    values = [run.phases.load(cycle, collect.numbered("collect", e)).values for e in collect.finished(run, cycle)]
    return [{"version": each.get("version", ""), "cohort": each["cohort"], "noise": each["noise"]} for each in values]


def _grown(folder: Path, journal: Journal) -> dict[str, Any]:
    """Return which bytes of each log are new since the last entry that covers it, and their SHA-256."""
    grown, covered = dict[str, Any](), journal.last(DECIDED, ENDED)
    for name in LOGS:
        start = covered.values["logs"][name]["end"] if covered else 0
        end = (folder / name).stat().st_size if (folder / name).exists() else 0
        grown[name] = {"start": start, "end": end, "sha256": digest_of(folder / name, start, end)}
    return grown
