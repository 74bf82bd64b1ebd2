"""Verification of a run on disk: its journal, and everything that the journal holds digests of.

What is checked, in this order: the chain and its signatures; the settings; the logs, which only grow; the files that
each cycle left; the summary's records; the versions, their signatures and parents; who made a version current; cohorts;
and the privacy budget. Reports and figures are made from these files, and are not checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..protocol.errors import FedoelError, RecordError, VersionError
from ..protocol.host.lock import owner
from ..protocol.options import read_options
from ..protocol.records.journal import (
    CURRENT,
    DECIDED,
    ENDED,
    OPENED,
    RAISED,
    REMOVED,
    Entry,
    chain_problems,
    read_line,
)
from ..protocol.records.summary import CycleRecord
from ..strategies.registry import BUILT_IN
from ..strategies.secure_groups import SecureGroups, fewest_of_group
from ..strategies.secure_mean import SecureMean
from .cycle.record import LOGS, digest_of_table, head_of
from .events import LOG
from .journal import NAME, OPERATOR, config_digest, digest_of, read_lines
from .registry import DRAFT, MANIFEST, WEIGHTS, load_adapter, load_manifest
from .run_folder import LOCK, STORED
from .run_location import RunLocation
from .safeguards import LEDGER, RunSafeguards
from .summary import NAME as SUMMARY
from .summary import later_cycles, read_summary
from .version_list import MADE

UNCHAINED = "unchained: the run is of a fedoel without a journal, so that its logs and records can only be read"
TORN = f"{NAME} has no whole line: put back a copy of it; a run that was killed as it began goes on with --resume"
LEARNED = ("promoted", "rejected", "no-gain", "waiting", "rolling-out")  # decisions that need experience of devices
TOLERANCE = 1e-6  # of epsilon, which is computed in floating point


@dataclass
class Verification:
    """What was checked of a run.

    Parameters
    ----------
    checked
        What was looked at, with numbers.
    notes
        What a reader should know and is no error, such as an operator's choices.
    problems
        What does not hold, each with the name of the file.
    head
        SHA-256 of the journal's last line; empty without a journal.
    """

    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    head: str = ""


def verify(place: RunLocation, head: str = "") -> Verification:
    """Check a run, and return everything that does not hold.

    Parameters
    ----------
    head
        Digest of a line that the journal must still hold, as an earlier verification gave it: it shows whether the end
        of the journal was cut off.
    """
    return _Verifier(place).run(head)


class _Verifier:
    def __init__(self, place: RunLocation) -> None:
        self.place, self.result = place, Verification()
        self.lines = read_lines(place.run)
        self.entries = list(_readable(self.lines))
        self.decided = [entry for entry in self.entries if entry.kind == DECIDED]

    def run(self, head: str) -> Verification:
        self._chain(head)
        checks: Sequence[Callable[[], str]] = (
            *((self._settings, self._logs, self._files, self._records) if self.lines else ()),
            self._versions,
            *((self._current, self._cohorts) if self.lines else ()),
            self._budget,
        )
        for check in checks:
            try:
                self.result.checked.append(check())
            except FedoelError as error:
                self.result.problems.append(str(error))
            except OSError as error:  # a folder in the place of a file, or one that only another user may read
                self.result.problems.append(f"{error.filename} cannot be read: {error.strerror}")
        return self.result

    def _wrong(self, problem: str) -> None:
        self.result.problems.append(problem)

    @cached_property
    def records(self) -> Sequence[CycleRecord]:
        return read_summary(self.place.run).cycles

    @cached_property
    def begun(self) -> int:
        """The last cycle that had ended before the journal began; -1 if it is there from the beginning."""
        return next((int(entry.values["cycle"]) for entry in self.entries if entry.kind == OPENED), -1)

    def _chain(self, head: str) -> None:
        if not self.lines and (self.place.run / NAME).exists():
            self._wrong(TORN)
        elif not self.lines:
            self.result.notes.append(UNCHAINED)
        else:
            self.result.checked.append(f"journal: {len(self.lines)} entries, each signed and chained to the one before")
            self.result.head = self.entries[-1].digest if self.entries else ""
        for problem in chain_problems(self.lines, self.place.fleet_key):
            self._wrong(f"{NAME}, {problem}")
        if head and head not in {entry.digest for entry in self.entries}:
            self._wrong(f"{NAME} does not hold the line {head}: its end was cut off, or it is another run's")
        if self.begun >= 0:
            self.result.notes.append(f"cycles up to {self.begun} had ended before the journal began")

    def _settings(self) -> str:
        known = {entry.values["config"] for entry in self.entries if entry.kind == OPENED} - {""}
        raised = [entry for entry in self.entries if entry.kind == RAISED]
        for entry in raised:
            cycle, before, cycles = (entry.values[name] for name in ("cycle", "before", "cycles"))
            self.result.notes.append(f"after cycle {cycle}, the run was given {cycles} cycles instead of {before}")
            if known and config_digest(self.place.run, before) not in known:
                self._wrong(f"{NAME}, line {entry.number}: more than the number of cycles changed")
            known.add(entry.values["config"])
        if raised and raised[-1] is not self.entries[-1]:  # otherwise the run has not gone on with it
            known = {raised[-1].values["config"]}
        if known and config_digest(self.place.run) not in known:
            self._wrong("config.json: the settings are not those that the run began with")
        more = f", with {raised[-1].values['cycles']} cycles" if raised else ""
        return f"settings: those that the run began with{more}"

    def _logs(self) -> str:
        for name in LOGS:
            end, path = 0, self.place.run / name
            for entry in [entry for entry in self.entries if entry.kind in (DECIDED, ENDED)]:
                part = entry.values["logs"][name]
                if part["start"] != end or digest_of(path, part["start"], part["end"]) != part["sha256"]:
                    self._wrong(
                        f"{name}, bytes {part['start']} to {part['end']}: changed after line {entry.number} of {NAME}"
                    )
                end = part["end"]
        return f"logs: {' and '.join(name for name in LOGS if (self.place.run / name).exists())}"

    def _files(self) -> str:
        digests = {name: (sha, entry) for entry in self.decided for name, sha in entry.values["files"].items()}
        removed = {name for entry in self.entries if entry.kind == REMOVED for name in entry.values["files"]}
        for name, (digest, entry) in digests.items():
            path = self.place.run / name
            if not path.exists():
                if name not in removed:
                    self._wrong(f"{name} of {_cycle(entry)} is missing")
            elif digest_of(path) != digest:
                self._wrong(f"{name} was changed after {_cycle(entry)}")
        return f"files of cycles: {len(digests)}"

    def _records(self) -> str:
        newest = {int(entry.values["cycle"]): entry for entry in self.decided}
        _ = self.records  # which refuses a file that cannot be read
        written = json.loads((self.place.run / SUMMARY).read_bytes())
        configured = int(written.get("config", {}).get("cycles", 0))
        for record in [*written["cycles"], *later_cycles(self.place.run, len(written["cycles"]), configured)]:
            entry = newest.pop(record["cycle"], None)
            if entry is not None and entry.values["record"] != digest_of_table(record):
                self._wrong(f"summary.json: the record of cycle {record['cycle']} was changed")
        if self.decided and self.decided[-1].values["summary"] != digest_of_table(head_of(written)):
            self._wrong("summary.json: what it says of the whole run was changed")
        for cycle in sorted(newest):
            self._wrong(f"summary.json lacks cycle {cycle}: go on with the run, or put back a copy")
        self._cut_off(len(written["cycles"]), configured)
        return f"records: {len(self.records)} cycles"

    def _cut_off(self, in_summary: int, configured: int) -> None:
        """Find what the end of the journal lacks.

        A cycle is written into the log, the journal and the summary, in this order: only the last one of the log may
        lack its line, where the run was killed in between. The journal is read again, behind the summary, since the run
        may have gone on meanwhile.
        """
        last, goes_on = len(self.records) - 1, owner(self.place.run / LOCK)
        ends = [entry for entry in _readable(read_lines(self.place.run)) if entry.kind in (DECIDED, ENDED)]
        known = {int(entry.values["cycle"]) for entry in ends if entry.kind == DECIDED}
        unknown = [cycle for cycle in range(self.begun + 1, last + 1) if cycle not in known]
        if unknown == [last] and last >= in_summary:
            self.result.notes.append(f"{NAME} does not tell of cycle {last} yet: the run goes on, or was killed there")
            return
        for cycle in unknown:
            teller = SUMMARY if cycle < in_summary else LOG
            self._wrong(f"{teller} tells of cycle {cycle}, of which {NAME} knows nothing: its end was cut off")
        if in_summary > configured > self.begun and not unknown and ends[-1].kind != ENDED and not goes_on:
            self._wrong(
                f"{NAME} lacks the end of the run, all of whose cycles {SUMMARY} has: its own end was cut off, or the "
                "run was killed there and goes on with --resume"
            )

    def _versions(self) -> str:
        whole = (path for path in self.place.versions.glob("*") if not path.name.startswith(DRAFT))
        folders = sorted(path for path in whole if (path / MANIFEST).exists())
        names, with_weights, key = {path.name for path in folders}, 0, self.place.fleet_key
        for folder in folders:
            try:
                manifest = load_manifest(folder, key)
                if manifest.version != folder.name:
                    self._wrong(f"versions/{folder.name}: its manifest is of version {manifest.version}")
                if manifest.parent and manifest.parent not in names:
                    self._wrong(f"versions/{folder.name}: its parent {manifest.parent} is missing")
                if (folder / WEIGHTS).exists():
                    load_adapter(folder, key)
                    with_weights += 1
            except (VersionError, OSError) as error:
                self._wrong(f"versions/{folder.name}: {error}")
        with suppress(FedoelError):
            self._gates(names)
        return f"versions: {len(folders)} signed manifests, {with_weights} with weights that hash to their names"

    def _gates(self, names: set[str]) -> None:
        """Check that what the summary says of a promoted version's gate is what its signed manifest says."""
        for record in self.records:
            if record.decision not in MADE:
                continue
            if record.version not in names:
                self._wrong(f"versions/{record.version}, which cycle {record.cycle} made, is missing")
                continue
            gate = load_manifest(self.place.versions / record.version).gate
            if record.decision == "promoted" and (gate is None or replace(gate, reason=None) != record.gate):
                self._wrong(f"versions/{record.version}: its gate is not the one that summary.json has")

    def _current(self) -> str:
        made = {(entry.values["version"], entry.values["cycle"]): entry.values["decision"] for entry in self.decided}
        choices = [entry for entry in self.entries if entry.kind == CURRENT]
        for entry in choices:
            version, cycle = entry.values["version"], entry.values["cycle"]
            if entry.values["by"] == OPERATOR:
                text = f"after cycle {cycle}, an operator made {version} current: {entry.values['reason']}"
                self.result.notes.append(text)
            elif made.get((version, cycle)) not in MADE and (version, cycle) in made:
                self._wrong(f"{NAME}, line {entry.number}: cycle {cycle} made {version} current without a gate")
        for entry in self.decided:
            decision = entry.values["decision"]
            if decision in LEARNED and not any(exchange["cohort"] for exchange in entry.values["exchanges"]):
                self._wrong(
                    f"{NAME}, line {entry.number}: {_cycle(entry)} is {decision}, and no device took part in it"
                )
        return f"current versions: {len(choices)} changes, each by a gate or an operator"

    def _cohorts(self) -> str:
        exchanges = [(entry, exchange) for entry in self.decided for exchange in entry.values["exchanges"]]
        safeguards = RunSafeguards(self.place.config)
        for entry, exchange in exchanges:
            cohort, members = exchange["cohort"], entry.values["members"]
            least = _fewest(safeguards, entry.values["secure"])
            # With noise, it is the number that is drawn on average of the population, of which some are missing.
            most = max(members, safeguards.population) if safeguards.noisy else members
            if cohort and cohort < least:
                self._wrong(
                    f"{NAME}, line {entry.number}: a cohort of {cohort}, and by {STORED} a sum is over {least} devices "
                    "or more"
                )
            elif cohort > most:
                self._wrong(f"{NAME}, line {entry.number}: a cohort of {cohort}, and the fleet had {members} devices")
        return f"cohorts: {len(exchanges)} exchanges within the fleet"

    def _budget(self) -> str:
        config = self.place.config
        safeguards = RunSafeguards(config, reads=True)
        if not safeguards.noisy:
            return "privacy budget: none, the run adds no noise"
        if not (self.place.run / LEDGER).exists():
            raise VersionError(f"{LEDGER} is missing, so that the budget spent is unknown")
        for record in self.records:
            spent = safeguards.spent(record.cycle)
            if abs(record.epsilon - spent) > TOLERANCE * max(1.0, spent):
                self._wrong(
                    f"summary.json, cycle {record.cycle}: epsilon {record.epsilon:.6g}, and {LEDGER} makes {spent:.6g}"
                )
        total = safeguards.spent()
        if total > config.privacy.epsilon * (1 + TOLERANCE):
            self._wrong(f"{LEDGER}: epsilon {total:.4g} was spent of {config.privacy.epsilon:g}")
        return f"privacy budget: epsilon {total:.3g} of {config.privacy.epsilon:g} spent"


def _fewest(safeguards: RunSafeguards, secure: bool) -> int:
    """Return the fewest devices that an exchange of a run can be over; `secure` is what the journal says of it."""
    config = safeguards.config.strategy
    strategy = BUILT_IN.get(config.name)
    if strategy is None:  # a plug-in is not loaded: whoever has sent the run's folder may have named it
        return 2 if secure else 1
    if issubclass(strategy, SecureGroups):
        known = strategy.options()
        size = read_options(config.options, known).get("group_size", known["group_size"].default)
        return fewest_of_group(int(size), safeguards.max_dropout)
    return safeguards.fewest if issubclass(strategy, SecureMean) else 1


def _cycle(entry: Entry) -> str:
    return f"cycle {entry.values['cycle']}"


def _readable(lines: Sequence[bytes]) -> Iterator[Entry]:
    for line in lines:
        with suppress(RecordError):
            entry = read_line(line)
            if _is_complete(entry):
                yield entry


FIELDS = {
    OPENED: ("config", "cycle"), CURRENT: ("version", "by", "cycle", "reason"), REMOVED: ("files",),
    RAISED: ("config", "cycles", "before", "cycle"),
    DECIDED: ("cycle", "decision", "version", "exchanges", "members", "secure", "record", "summary", "files", "logs"),
    ENDED: ("logs",),
}  # fmt: skip


def _is_complete(entry: Entry) -> bool:
    """Whether an entry has the fields that are read here; a changed line, which the chain names, may not."""
    values: Any = entry.values
    return all(name in values for name in FIELDS.get(entry.kind, ()))
