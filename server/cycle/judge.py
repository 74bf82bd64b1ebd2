"""Stage `judge`: the gate tries the candidate without a context. A candidate that loses is not promoted."""

from __future__ import annotations

from dataclasses import dataclass

from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Stats
from ..gate import Evidence, Trial, Verdict
from .phases import Form, Outcome
from .run import Run
from .state import State
from .trained import Trained

EVIDENCE = Form(
    lambda evidence: Outcome({"gate": {"candidate": to_json(evidence.stats)}}, evidence.trial.to_arrays()),
    lambda outcome: Evidence(Trial.from_arrays(outcome.arrays), from_json(Stats, outcome.values["gate"]["candidate"])),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate has seen of a candidate, and what it decided."""

    evidence: Evidence
    verdict: Verdict


def judge(run: Run, state: State, cycle: int, candidate: Trained) -> Judged:
    """Compare a candidate with the current version."""
    evidence = run.phases.run(
        cycle, "gate", EVIDENCE, lambda advance: run.gate.evidence(run.contender(candidate.adapter), advance),
        run.gate.episodes,
    )  # fmt: skip
    return Judged(evidence, run.gate.candidate_holds(state.evidence.trial, evidence.trial))
