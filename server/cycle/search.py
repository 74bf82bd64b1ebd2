"""Stage `search`: which context is worth distilling. The gate tries it, and halves it until it helps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ...codecs.context import TeacherContext
from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import ChoiceRecord, Lesson, Results, Stats
from ..events import Advance
from ..gate import Evidence, Verdict, sample_of
from .context import halved
from .mixture import Mixture
from .phases import Form, Outcome
from .run import Run, State, States
from .trial import compare


@dataclass(frozen=True, slots=True)
class Tried:
    """What the gate has seen of a teacher, and how it does on held-out games. Only the gate's evidence decides."""

    evidence: Evidence
    held_out: Results


@dataclass(frozen=True, slots=True)
class Choices:
    """The codec's candidate contexts, best first, and the weights of the best."""

    records: tuple[ChoiceRecord, ...]
    weights: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What the search ended with; `current` is what the gate has seen of the current version."""

    contexts: Mixture
    tried: Tried
    current: Evidence
    verdict: Verdict
    choices: tuple[ChoiceRecord, ...]


def _write_tried(tried: Tried) -> Outcome:
    gate = {"teacher": to_json(tried.evidence.stats)}
    return Outcome({"held_out": to_json(tried.held_out), "gate": gate}, tried.evidence.sample.arrays())


def _read_tried(outcome: Outcome) -> Tried:
    evidence = Evidence(sample_of(outcome.arrays), from_json(Stats, outcome.values["gate"]["teacher"]))
    return Tried(evidence, from_json(Results, outcome.values["held_out"]))


TRIED = Form(_write_tried, _read_tried)
LESSONS: Form[tuple[Lesson, ...]] = Form(
    lambda lessons: Outcome({"lessons": [to_json(lesson) for lesson in lessons]}),
    lambda outcome: tuple(from_json(Lesson, lesson) for lesson in outcome.values["lessons"]),
)
CHOICES = Form(
    lambda choices: Outcome({"choices": [to_json(record) for record in choices.records]}, {"weights": choices.weights}),
    lambda outcome: Choices(
        tuple(from_json(ChoiceRecord, choice) for choice in outcome.values["choices"]), outcome.arrays["weights"]
    ),
)


def search(run: Run, state: State, states: States, contexts: Mixture) -> Found:
    """Find the longest context that helps, or say that none does.

    The whole context may be tried on several blocks of games, its halves on the first one only. A context that was
    chosen among several by the gate's games is not halved. Public games only: however often they are
    played, devices give away nothing more.
    """
    contexts, choices = _choose(run, state, states, contexts)
    names, current = [choice.name for choice in choices], state.evidence
    halvings = 0 if names or not contexts.moves else run.config.context.halvings
    for halving in range(halvings + 1):
        if halving:
            contexts = halved(run, states, contexts, halving)
            names = [f"1/{2**halving} of it", *(names or ["all of it"])]
        name = f"teacher-half-{halving}" if halving else "teacher"
        tried = _try(run, state, states.cycle, contexts, name)
        current, evidence, verdict = compare(
            run, replace(state, evidence=current), states.cycle, name, run.contender(state.version.adapter, contexts),
            tried.evidence, partial(run.gate.context_helps, choices=names),
            most=1 if halving or not contexts.moves else run.gate.blocks,
        )  # fmt: skip
        if verdict.passed or verdict.paused:
            break
    return Found(contexts, replace(tried, evidence=evidence), current, verdict, choices)


def _try(run: Run, state: State, cycle: int, contexts: Mixture, name: str) -> Tried:
    """Let a teacher play the first block of the gate's games, and held-out ones for the report."""

    def work(advance: Advance) -> Tried:
        teacher = run.contender(state.version.adapter, contexts)
        evidence = run.gate.evidence(cycle, state.version, teacher, 1, advance)
        return Tried(evidence, run.report.teacher(teacher, evidence, advance))

    return run.phases.run(cycle, name, TRIED, work, run.gate.episodes + run.report.teacher_episodes)


def _choose(run: Run, state: State, states: States, contexts: Mixture) -> tuple[Mixture, tuple[ChoiceRecord, ...]]:
    """Choose among the codec's candidate contexts, if it offers any."""
    if not run.codec.has_candidates or len(contexts.contexts) > 1:
        return contexts, ()
    (context,) = contexts.contexts
    choices = run.phases.run(
        states.cycle, "choose", CHOICES, lambda advance: _compared(run, state, states, context, advance)
    )
    best = replace(context, weights=choices.weights, kl=choices.records[0].kl)
    return Mixture.of(best), choices.records


def _compared(run: Run, state: State, states: States, context: TeacherContext, advance: Advance) -> Choices:
    """Rank what a context can become by mean merit; of equals, the one that the codec names first is better."""
    policy = run.learner.policy(state.version.adapter)
    offered = run.codec.candidates(policy, states.without_context(), context, run.config.context)
    records = list[ChoiceRecord]()
    for choice in offered:
        teacher = run.contender(state.version.adapter, Mixture.of(choice.context))
        seen = run.gate.evidence(states.cycle, state.version, teacher, 1, advance)
        merit = seen.sample.against(state.evidence.sample).mean()
        records.append(ChoiceRecord(name=choice.name, kl=choice.context.kl, merit=merit))
    order = sorted(range(len(offered)), key=lambda index: -records[index].merit)
    return Choices(tuple(records[index] for index in order), offered[order[0]].context.weights)


def lessons_of(run: Run, state: State, states: States, contexts: Mixture) -> tuple[Lesson, ...]:
    """Say a context in words; of several contexts, each lesson has the number of its context."""

    def work(advance: Advance) -> tuple[Lesson, ...]:
        turns = states.without_context()
        policy = run.learner.policy(state.version.adapter)
        lessons = [run.codec.lessons(policy, turns, context) for context in contexts.contexts]
        if len(lessons) == 1:
            return tuple(lessons[0])
        return tuple(replace(lesson, cluster=number) for number, some in enumerate(lessons, start=1) for lesson in some)

    return run.phases.run(states.cycle, "lessons", LESSONS, work)
