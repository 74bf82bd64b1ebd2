"""Stage `judge`: the gate tries the candidate without a context. A candidate that loses is not promoted."""

from __future__ import annotations

from dataclasses import asdict

from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Stats
from ..gate import Evidence, Trial, Verdict
from .distil import Trained
from .phases import Form, Outcome
from .run import Run, State

EVIDENCE = Form(
    lambda evidence: Outcome({"gate": {"candidate": to_json(evidence.stats)}}, asdict(evidence.trial)),
    lambda outcome: Evidence(Trial(**outcome.arrays), from_json(Stats, outcome.values["gate"]["candidate"])),
)


def judge(run: Run, state: State, cycle: int, candidate: Trained) -> tuple[Evidence, Verdict]:
    """Compare a candidate with the current version; return what the gate has seen of it, and what it decided."""
    evidence = run.phases.run(
        cycle, "gate", EVIDENCE, lambda advance: run.gate.evidence(run.contender(candidate.adapter), advance),
        run.gate.episodes,
    )  # fmt: skip
    return evidence, run.gate.candidate_holds(state.evidence.trial, evidence.trial)
