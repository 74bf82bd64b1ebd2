"""Stage `residual`: what a promoted version has not absorbed of its teacher's context; the next cycle begins with it.

The share s of the teacher's context w is measured for which the student, tilted by s w, diverges least from its teacher
on prompts of the cycle:

    argmin_s  mean_x KL( teacher(. | x) || student(. | x) exp(s w . phi(x, .)) / Z(x) )

Kept is this share of the context as it was before it was lengthened for the teacher (`context.teacher-kl`): otherwise
every cycle would lengthen what earlier ones have lengthened. Devices play the first exchange of later cycles under it
for as long as the version is current. It is computed from what the fleet has released already: it costs no privacy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...codecs.context import TeacherContext, mean_divergence
from ...codecs.log_linear import tilted
from ...policies.policy import LogProbs
from ..events import Advance
from .contender import Version
from .phases import Form, Outcome
from .run import Run, States

NAME = "residual"  # of the phase
SHARES = 20  # steps from nothing to the whole context
MEASURED_PROMPTS = 128


@dataclass(frozen=True, slots=True)
class Residual:
    """The context that later cycles begin with while `version` is current, and its share of the teacher's."""

    version: str
    share: float
    context: TeacherContext


def _write(residual: Residual) -> Outcome:
    context = residual.context
    values = {"version": residual.version, "share": residual.share, "kl": context.kl}
    return Outcome(values, {"weights": context.weights, "support": context.fisher})


def _read(outcome: Outcome) -> Residual:
    values, arrays = outcome.values, outcome.arrays
    context = TeacherContext(arrays["weights"], arrays["support"], values["kl"])
    return Residual(values["version"], values["share"], context)


RESIDUAL = Form(_write, _read)


def keep_residual(
    run: Run, states: States, finished: TeacherContext, context: TeacherContext, student: Version
) -> float:
    """Keep what a promoted version has left of its teacher's context, and return the share.

    Parameters
    ----------
    finished
        The context after the cycle's exchanges.
    context
        The teacher's, which is `finished` or longer.
    """

    def work(advance: Advance) -> Residual:
        public = states.without_context()
        turns = [turn for turn in public if len(turn.situation.choices) > 1]
        turns = turns[:: math.ceil(len(turns) / MEASURED_PROMPTS)]
        policy = run.learner.policy(states.version.adapter)
        teacher = run.codec.teacher_log_probs(policy, turns, context)
        offsets = run.codec.score_offsets(policy, turns, context) or []
        answers = run.learner.policy(student.adapter, measured=True).score([turn.situation for turn in turns])
        share = share_left(teacher, answers, offsets)
        left = replace(finished, weights=(share * finished.weights).astype(finished.weights.dtype))
        added = run.codec.score_offsets(policy, turns, left) or []
        under = [tilted(log_probs, offset) for log_probs, offset in zip(answers, added, strict=True)]
        return Residual(student.name, share, replace(left, kl=mean_divergence(under, answers)))

    return run.phases.run(states.cycle, NAME, RESIDUAL, work).share


def residual_of(run: Run, states: States) -> TeacherContext | None:
    """Return what a cycle begins with: what the making of its version has left; None if there is nothing."""
    if not run.config.context.residual:
        return None
    for cycle in range(states.cycle - 1, 0, -1):
        if run.phases.finished(cycle, NAME):
            residual = RESIDUAL.read(run.phases.load(cycle, NAME))
            if residual.version == states.version.name:
                return residual.context
    return None


def share_left(teacher: Sequence[LogProbs], student: Sequence[LogProbs], offsets: Sequence[LogProbs]) -> float:
    """Return the share of the offsets, from 0 to 1, with which a student diverges least from its teacher.

    Parameters
    ----------
    teacher, student
        Log-probabilities of each state's commands, shapes ``(A,)``.
    offsets
        What the teacher's context adds to scores, shapes ``(A,)``.
    """

    def divergence_at(share: float) -> float:
        return mean_divergence(
            teacher, [tilted(log_probs, share * added) for log_probs, added in zip(student, offsets, strict=True)]
        )

    shares: list[float] = np.linspace(0, 1, SHARES + 1).tolist()
    return min(shares, key=divergence_at)
