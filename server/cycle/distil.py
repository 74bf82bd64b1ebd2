"""Stage `distil`: on-policy context distillation of the teacher into a candidate adapter.

The student trains on public states. Where the server plays, they are those that it visits itself without the context,
and those that the teacher leads to; off-policy, the baseline, only the latter. Elsewhere they are prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ...codecs.codec import Codec
from ...policies.policy import LogProbs, Policy
from ...protocol.play import Turn
from ..events import Advance
from ..learner import Adapter, DistillationTask
from .mixture import Mixture
from .phases import Form, Outcome
from .run import Run, States, TrainingTurns

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


def distil(run: Run, states: States, contexts: Mixture) -> Trained:
    """Train a candidate that plays without the contexts as the version does with them."""

    def work(advance: Advance) -> Trained:
        adapter = states.version.adapter
        training = states.training(contexts)
        seed = run.plan.training_seed(states.cycle)
        task = consolidation(run.codec, run.learner.policy(adapter), contexts, training, seed)
        distilled = run.learner.distil(adapter, task, advance)
        return Trained(run.learner.policy(distilled.adapter).version, distilled.adapter, distilled.views)

    return run.phases.run(states.cycle, "distil", TRAINED, work, run.config.distil.steps)


def consolidation(
    codec: Codec, policy: Policy, mixture: Mixture, training: Sequence[TrainingTurns], seed: int
) -> DistillationTask:
    """Return the distillation task over the turns of each context.

    States with a single command are left out: there is nothing to learn in them.
    """
    turns, indices, targets = list[Turn](), list[int](), list[LogProbs]()
    offsets: list[LogProbs] | None = []
    for index, (context, some) in enumerate(zip(mixture.contexts, training, strict=True)):
        visited, led = _choices(some.visited), _choices(some.led)
        turns += [*visited, *led]
        indices += [index] * (len(visited) + len(led))
        targets += codec.teacher_log_probs(policy, visited, context) if visited else []
        targets += [turn.log_probs for turn in led]
        added = codec.score_offsets(policy, [*visited, *led], context)
        offsets = None if offsets is None or added is None else [*offsets, *added]
    under = [partial(codec.teacher, context=context) for context in mixture.contexts]
    return DistillationTask(mixture.merged(), turns, targets, [under[index] for index in indices], offsets, seed)


def _choices(turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if len(turn.situation.choices) > 1]
