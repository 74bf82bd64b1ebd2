"""Stage `distil`: on-policy context distillation of the teacher into a candidate adapter.

The student trains on public states that it visits itself without the context, and on those that the teacher leads to;
off-policy, the baseline, only on the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ...codecs.codec import Codec
from ...codecs.tactics.policy import uniform_policy
from ...games.player import Advance
from ...games.prepare import prepare
from ...policies.policy import LogProbs, Policy
from ...protocol.play import Trajectory, Turn, turns_of
from ..learner import Adapter, DistillationTask
from .context import contexts_of
from .mixture import Mixture
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

    def work(advance: Advance) -> Trained:
        policy, exchanges = run.learner.policy(version.adapter), len(run.exchanges)
        # All rollouts of the cycle, needed or not: what the prefix cache holds must not depend on a resume.
        rollouts.of(exchanges, contexts_of(run, rollouts, exchanges - 1))
        visited = rollouts.without_context() if run.config.distil.on_policy else []
        teachers = [run.codec.teacher(policy, context) for context in contexts.contexts]
        games, cycle = run.plan.rehearsal, rollouts.cycle
        led, drawn = run.public.play_mixture(teachers, contexts, games, "rehearsal-teacher", cycle)
        prompts = _prompts(run, cycle, teachers, contexts)
        seed = run.plan.training_seed(cycle)
        task = consolidation(run.codec, policy, contexts, visited, led, drawn, seed, prompts)
        distilled = run.learner.distil(version.adapter, task, advance)
        return Trained(run.learner.policy(distilled.adapter).version, distilled.adapter, distilled.views)

    return run.phases.run(rollouts.cycle, "distil", TRAINED, work, run.config.distil.steps)


def consolidation(
    codec: Codec,
    policy: Policy,
    mixture: Mixture,
    visited: Sequence[Trajectory],
    led: Sequence[Trajectory],
    drawn: Sequence[int],
    seed: int,
    prompts: Sequence[Sequence[Turn]] = (),
) -> DistillationTask:
    """Return the distillation task over the states that the student visits, and those that the teachers lead to.

    Parameters
    ----------
    visited, led
        Games played by the student without a context, and by the teacher that was drawn for each: the same ones, or
        none that the student played.
    drawn
        Index of the context that was drawn for each game.
    prompts
        For each context, further states with the teacher's log-probabilities.

    States with a single command are left out: there is nothing to learn in them.
    """
    turns, indices, targets = list[Turn](), list[int](), list[LogProbs]()
    offsets: list[LogProbs] | None = []
    for index, context in enumerate(mixture.contexts):
        student_turns, teacher_turns = (
            _choices(turns_of([t for t, choice in zip(played, drawn, strict=bool(played)) if choice == index]))
            for played in (visited, led)
        )
        teacher_turns += _choices(prompts[index]) if prompts else []
        turns += [*student_turns, *teacher_turns]
        indices += [index] * (len(student_turns) + len(teacher_turns))
        targets += codec.teacher_log_probs(policy, student_turns, context) if student_turns else []
        targets += [turn.log_probs for turn in teacher_turns]
        added = codec.score_offsets(policy, [*student_turns, *teacher_turns], context)
        offsets = None if offsets is None or added is None else [*offsets, *added]
    under = [partial(codec.teacher, context=context) for context in mixture.contexts]
    teachers = [with_context(policy) for with_context in under]
    return DistillationTask(
        mixture.merged(), turns, targets, [teachers[index] for index in indices], [under[index] for index in indices],
        offsets, seed,
    )  # fmt: skip


def _choices(turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if len(turn.situation.admissible) > 1]


def _prompts(run: Run, cycle: int, teachers: Sequence[Policy], contexts: Mixture) -> list[list[Turn]]:
    """Return, for each context, states of random play with its teacher's log-probabilities."""
    games, turns = run.plan.prompts(cycle), list[list[Turn]]()
    prepare(games, run.cache)
    played = run.public.play(uniform_policy(), games, "prompts", cycle)
    drawn = contexts.draw(games, run.plan.streams("prompts", len(games), cycle))
    for index, teacher in enumerate(teachers):
        states = _choices(turns_of([t for t, choice in zip(played, drawn, strict=True) if choice == index]))
        answers = teacher.score([turn.situation for turn in states]) if states else []
        turns.append([replace(turn, log_probs=a) for turn, a in zip(states, answers, strict=True)])
    return turns
