"""Stage `judge`: the gate tries the candidate without a context. A candidate that loses is not promoted."""

from __future__ import annotations

from ..gate import Evidence, Verdict
from .distil import Trained
from .run import Run, State
from .trial import compare, play_block


def judge(run: Run, state: State, cycle: int, candidate: Trained) -> tuple[Evidence, Evidence, Verdict]:
    """Compare a candidate with the current version; return what the gate has seen of both, and what it decided."""
    contender = run.contender(candidate.adapter)
    first = play_block(run, state.version, cycle, "gate", contender, 1)
    return compare(run, state, cycle, "gate", contender, first, run.gate.candidate_holds, run.gate.blocks)
