"""Stage `distil`: on-policy context distillation of the teacher into a candidate adapter.

The student trains on public states that it visits itself without the context, and on those that the teacher leads to;
off-policy, the baseline, only on the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ...games.player import Advance
from ..learner import Adapter, Consolidation
from .context import contexts_of
from .mixture import Mixture, lessons
from .phases import Form, Outcome
from .rollouts import PublicRollouts
from .run import Run, Version

PREFIX = "adapter/"


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate for the next version.

    Parameters
    ----------
    views
        Mean divergence of the student from the teacher at the end of training, without the context and with it.
    """

    version: str
    adapter: Adapter
    views: Mapping[str, float] = field(default_factory=dict)


def _write(trained: Trained) -> Outcome:
    values = {"version": trained.version, **({"views": dict(trained.views)} if trained.views else {})}
    return Outcome(values, {f"{PREFIX}{name}": array for name, array in trained.adapter.items()})


def _read(outcome: Outcome) -> Trained:
    adapter: dict[str, NDArray[Any]] = {
        name.removeprefix(PREFIX): array for name, array in outcome.arrays.items() if name.startswith(PREFIX)
    }
    return Trained(outcome.values["version"], adapter, outcome.values.get("views", {}))


TRAINED = Form(_write, _read)


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
