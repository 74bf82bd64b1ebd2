"""Stage `judge`: the gate tries the candidate without a context; one that loses or drifts is tried again nearer.

A candidate that goes too far is often better half the way back, where its weights are the mean of its own and of the
current version's (WiSE-FT, arXiv 2109.01903): that costs no training, only another trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...protocol.records.summary import Stats
from ..evaluation import UNKNOWN, stats_of_wins
from ..events import Advance
from ..gate import Differences, Evidence, Verdict
from ..learner import Adapter
from .abilities import lost
from .answers import unfit
from .contender import Version
from .distil import TRAINED, Trained
from .drift import drifted
from .red_lines import crossed
from .run import Run, State
from .trial import compare, play_block


@dataclass(frozen=True, slots=True)
class Judged:
    """What a candidate came to: itself, what the gate has seen of it and of the current version, and the decision.

    `tried` is false where a red line, its drift, lost abilities or its answers have refused it before any game, and
    `drifts` says that it was no red line: nearer to the current version it may pass.
    """

    candidate: Trained
    current: Evidence
    evidence: Evidence
    verdict: Verdict
    tried: bool = True
    drifts: bool = False

    @property
    def current_stats(self) -> Stats:
        """Results of the current version beside the candidate's: in a trial on devices, its games of the same trial."""
        sample = self.evidence.sample
        if not self.tried or not isinstance(sample, Differences) or sample.wins is None:
            return self.current.stats
        return stats_of_wins(float(sample.wins[0].sum()), float(sample.episodes.sum()))

    @property
    def loses(self) -> bool:
        """Whether it did worse than the current version, in some family at least."""
        return any(self._differences.mean(family) < 0 for family in range(len(self._differences.families)))

    @property
    def _differences(self) -> Differences:
        return self.evidence.sample.against(self.current.sample)


def judge(run: Run, state: State, cycle: int, candidate: Trained) -> Judged:
    """Compare a candidate with the current version; one refused for losing or for drift, again at half the distance."""
    judged = _compared(run, state, cycle, "gate", candidate)
    for halving in range(1, run.config.distil.halvings + 1):
        if judged.verdict.passed or judged.verdict.paused or not (judged.loses or judged.drifts):
            break
        nearer = run.phases.run(
            cycle, f"distil-half-{halving}", TRAINED, partial(_halfway, run, state.version, judged.candidate)
        )
        again = _compared(run, replace(state, evidence=judged.current), cycle, f"gate-half-{halving}", nearer)
        reason = f"1/{2**halving} of the way to the candidate: {again.verdict.reason}"
        judged = replace(again, verdict=replace(again.verdict, reason=reason))
    return judged


def _compared(run: Run, state: State, cycle: int, name: str, candidate: Trained) -> Judged:
    crosses = crossed(run, state, cycle, name.replace("gate", "red-lines"), candidate)
    drifts = "" if crosses else _drifts(run, cycle, name, candidate)
    if crosses or drifts:
        untried = Evidence(state.evidence.sample, UNKNOWN)
        refused = Verdict(False, crosses or drifts)
        return Judged(candidate, state.evidence, untried, refused, tried=False, drifts=bool(drifts))
    contender = run.contender(candidate.adapter)
    first = play_block(run, state.version, cycle, name, contender, 1)
    return Judged(
        candidate, *compare(run, state, cycle, name, contender, first, run.gate.candidate_holds, run.gate.blocks)
    )


def _drifts(run: Run, cycle: int, name: str, candidate: Trained) -> str:
    """Return what refuses a candidate untried that may pass nearer to the current version; empty if nothing does."""
    for stage, reason_of in (("drift", drifted), ("abilities", lost), ("answers", unfit)):
        if reason := reason_of(run, cycle, name.replace("gate", stage), candidate):
            return reason
    return ""


def _halfway(run: Run, version: Version, candidate: Trained, advance: Advance) -> Trained:
    adapter = mean_of(version.adapter, candidate.adapter)
    return Trained(run.learner.policy(adapter).version, adapter)


def mean_of(first: Adapter, second: Adapter) -> Adapter:
    """Return the mean of two adapters, weight by weight, in the precision of the second."""
    return {
        name: ((first[name].astype(np.float64) + array.astype(np.float64)) / 2).astype(array.dtype)
        for name, array in second.items()
    }
