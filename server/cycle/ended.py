"""What a run can begin from behind a cycle that has ended: its version, what the gate has seen of it, and its rollout.

A resumed run reads its finished stages one after the other, from the first cycle on. Where `fedoel prune --checkpoints`
has removed weights of candidates from them, it begins behind the last cycle that had ended by then instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...protocol.fleet.membership import keys_folder, load_members
from ...protocol.records.journal import REMOVED, Entry
from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import CycleRecord, Stats
from ..gate import Evidence, sample_of
from ..journal import Journal
from ..registry import VERSIONS, load_adapter
from ..summary import later_cycles
from .contender import Version, begin
from .phases import Form, Outcome, cycle_folder, load_phase
from .run import Run, State

NAME = "ended"  # of the file


@dataclass(frozen=True, slots=True)
class Ended:
    """A state without weights; `before` and `stage` are those of its rollout, an empty name if there is none."""

    version: str
    evidence: Evidence
    before: str = ""
    stage: int = 0

    @property
    def versions(self) -> set[str]:
        """Versions whose weights a run that begins here reads."""
        return {self.version, self.before} - {""}


def _write(ended: Ended) -> Outcome:
    values = {
        "version": ended.version, "before": ended.before, "stage": ended.stage, "gate": to_json(ended.evidence.stats),
        "blocks": ended.evidence.blocks,
    }  # fmt: skip
    return Outcome(values, ended.evidence.sample.arrays())


def _read(outcome: Outcome) -> Ended:
    values: Mapping[str, Any] = outcome.values
    evidence = Evidence(sample_of(outcome.arrays), from_json(Stats, values["gate"]), values["blocks"])
    return Ended(values["version"], evidence, values["before"], values["stage"])


ENDED = Form(_write, _read)


def keep_ended(run: Run, state: State, cycle: int) -> None:
    """Keep the state after a cycle, unless it is there already."""
    if not run.phases.finished(cycle, NAME):
        rollout = state.rollout
        before, stage = (rollout.before.name, rollout.stage) if rollout else ("", 0)
        run.phases.keep(cycle, NAME, ENDED.write(Ended(state.version.name, state.evidence, before, stage)))


def ended_in(run: Path, cycle: int) -> Ended | None:
    """Return what a cycle has kept; None if it has kept nothing, as with release 0.1.

    Raises
    ------
    FedoelError
        If the file is damaged.
    """
    there = (cycle_folder(run, cycle) / f"{NAME}.npz").exists()
    return ENDED.read(load_phase(run, cycle, NAME)) if there else None


def begins_behind(journal: Journal) -> int:
    """Return the cycle behind which a resumed run begins, because checkpoints of cycles up to it were removed."""
    entries: Sequence[Entry] = journal.of_kind(REMOVED)
    return max((int(entry.values.get("cycle", 0)) for entry in entries), default=0)


def state_behind(run: Run, cycle: int) -> State:
    """Return the state after a cycle that has ended in an earlier process.

    Raises
    ------
    FedoelError
        If what the cycle has kept is missing or damaged.
    VersionError
        If the weights of its version do not verify.
    """
    ended = ENDED.read(run.phases.load(cycle, NAME))
    _, fleet_key = load_members(keys_folder(run.config))

    def version(name: str) -> Version:
        return Version(*load_adapter(run.folder / VERSIONS / name, fleet_key))

    rollout = begin(run.config, version(ended.before)) if ended.before else None
    rollout = replace(rollout, stage=ended.stage) if rollout else None
    return State(version(ended.version), ended.evidence, record_of(run, cycle), rollout)


def record_of(run: Run, cycle: int) -> CycleRecord:
    """Return what the log tells of a cycle that has ended."""
    [entry] = later_cycles(run.folder, cycle, cycle)
    return from_json(CycleRecord, entry)
