"""Stage `judge`: the gate tries the candidate without a context. A candidate that loses is not promoted."""

from __future__ import annotations

from ..gate import Evidence, Verdict
from .distil import Trained
from .run import Run, State
from .trial import EVIDENCE, compare


def judge(run: Run, state: State, cycle: int, candidate: Trained) -> tuple[Evidence, Evidence, Verdict]:
    """Compare a candidate with the current version; return what the gate has seen of both, and what it decided."""
    contender = run.contender(candidate.adapter)
    first = run.phases.run(
        cycle, "gate", EVIDENCE, lambda advance: run.gate.evidence(contender, 1, advance), run.gate.episodes
    )
    return compare(run, state, cycle, "gate", contender, first, run.gate.candidate_holds)
