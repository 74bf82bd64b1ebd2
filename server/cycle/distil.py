"""Stage `distil`: on-policy context distillation of the teacher into a candidate adapter.

The student trains on public states that it visits itself without the context, and on those that the teacher leads to;
off-policy, the baseline, only on the latter.
"""

from __future__ import annotations

from functools import partial

from ...games.player import Advance
from ..learner import Consolidation
from .context import contexts_of
from .mixture import Mixture, lessons
from .rollouts import PublicRollouts
from .run import Run
from .state import Version
from .trained import TRAINED, Trained


def distil(run: Run, version: Version, rollouts: PublicRollouts, contexts: Mixture) -> Trained:
    """Train a candidate that plays without the contexts as the version does with them."""
    steps = run.config.distil.steps
    return run.phases.run(
        rollouts.cycle, "distil", TRAINED, lambda advance: _train(run, version, rollouts, contexts, advance), steps
    )


def _train(run: Run, version: Version, rollouts: PublicRollouts, contexts: Mixture, advance: Advance) -> Trained:
    policy = run.learner.policy(version.adapter)
    # All rollouts of the cycle, needed or not: what the prefix cache holds must not depend on a resume.
    rollouts.of(len(run.exchanges), contexts_of(run, rollouts, len(run.exchanges) - 1))
    visited = rollouts.without_context() if run.config.distil.on_policy else []
    under = [partial(run.codec.teacher, context=context) for context in contexts.contexts]
    teachers = [with_context(policy) for with_context in under]
    games = run.plan.rehearsal
    led, drawn = run.public.play_mixture(teachers, contexts, games, "rehearsal-teacher", rollouts.cycle)
    states = lessons(run.codec, policy, contexts, visited, led, drawn)
    task = Consolidation(
        contexts.merged(), states.turns, states.targets, [teachers[index] for index in states.drawn],
        [under[index] for index in states.drawn], states.tilts, run.plan.training_seed(rollouts.cycle),
    )  # fmt: skip
    made = run.learner.distil(version.adapter, task, advance)
    return Trained(run.learner.policy(made.adapter).version, made.adapter, made.views)
