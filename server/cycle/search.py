"""Stage `search`: which context is worth distilling. The gate tries it, and halves of it while it does not help."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from numpy.typing import NDArray

from ...codecs.context import TeacherContext
from ...games.player import Advance
from ...protocol.play import turns_of
from ..gate import Evidence, Trial, Verdict
from ..summary import Entry, stats_of
from .contender import Contender
from .context import halved
from .mixture import Mixture
from .phases import Form, Outcome
from .rollouts import PublicRollouts
from .run import Run
from .state import State


@dataclass(frozen=True, slots=True)
class Tried:
    """What the gate has seen of a teacher, and how it does on held-out games. Only the gate's evidence decides."""

    evidence: Evidence
    current: Entry
    held_out: Entry


@dataclass(frozen=True, slots=True)
class Choices:
    """The contexts that a single one can become, best first, and the weights of the best."""

    entries: list[Entry]
    weights: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What the search ended with."""

    contexts: Mixture
    tried: Tried
    verdict: Verdict
    choices: list[Entry]


def _write_tried(tried: Tried) -> Outcome:
    gate = {"current": tried.current, "teacher": tried.evidence.stats}
    return Outcome({"held_out": tried.held_out, "gate": gate}, tried.evidence.trial.to_arrays())


def _read_tried(outcome: Outcome) -> Tried:
    gate, trial = outcome.values["gate"], Trial.from_arrays(outcome.arrays)
    return Tried(Evidence(trial, gate["teacher"]), gate["current"], outcome.values["held_out"])


TRIED = Form(_write_tried, _read_tried)
CHOICES = Form(
    lambda choices: Outcome({"choices": choices.entries}, {"weights": choices.weights}),
    lambda outcome: Choices(outcome.values["choices"], outcome.arrays["weights"]),
)


def search(run: Run, state: State, rollouts: PublicRollouts, contexts: Mixture) -> Found:
    """Find the longest context that helps, or say that none does.

    A context that was chosen among several by the gate's games is not halved. Public games only: however often they are
    played, devices give away nothing more.
    """
    contexts, choices = _choose(run, state, rollouts, contexts)
    names = [str(choice["name"]) for choice in choices]
    halvings = 0 if names or not contexts.moves else run.config.context.halvings
    for halving in range(halvings + 1):
        if halving:
            contexts = halved(run, rollouts, contexts, halving)
            names = [f"1/{2**halving} of it", *(names or ["all of it"])]
        tried = _try(run, state, rollouts.cycle, contexts, f"teacher-half-{halving}" if halving else "teacher")
        verdict = run.gate.context_helps(state.evidence.trial, tried.evidence.trial, names)
        if verdict.passed:
            break
    return Found(contexts, tried, verdict, choices)


def _try(run: Run, state: State, cycle: int, contexts: Mixture, name: str) -> Tried:
    """Let a teacher play the gate's games, and held-out ones for the report."""

    def work(advance: Advance) -> Tried:
        teacher = run.contender(state.version.adapter, contexts)
        evidence = run.gate.evidence(teacher, advance)
        held_out = run.public.rollouts(teacher, run.teacher_games, "held-out", advance)
        return Tried(evidence, state.evidence.stats, stats_of(held_out))

    return run.phases.run(cycle, name, TRIED, work, run.gate.episodes + len(run.teacher_games))


def _choose(run: Run, state: State, rollouts: PublicRollouts, contexts: Mixture) -> tuple[Mixture, list[Entry]]:
    """Choose among the contexts that a single one can become, where its codec offers a choice."""
    if not run.codec.chooses or len(contexts.contexts) > 1:
        return contexts, []
    (context,) = contexts.contexts
    choices = run.phases.run(
        rollouts.cycle, "choose", CHOICES, lambda advance: _compared(run, state, rollouts, context, advance)
    )
    best = replace(context, weights=choices.weights, kl=choices.entries[0]["kl"])
    return Mixture.of(best), choices.entries


def _compared(run: Run, state: State, rollouts: PublicRollouts, context: TeacherContext, advance: Advance) -> Choices:
    """Rank what a context can become by mean merit; of equals, the one that the codec names first is better."""
    policy = run.learner.policy(state.version.adapter)
    turns = turns_of(rollouts.without_context())
    offered = run.codec.choices(policy, turns, context, run.config.context)
    player, entries = run.learner.policy(state.version.adapter, measured=True), list[Entry]()
    for choice in offered:
        contender = Contender(
            state.version.adapter, (run.codec.teacher(player, choice.context),), Mixture.of(choice.context)
        )
        merit = float(run.gate.evidence(contender, advance).trial.merits.mean())
        entries.append({"name": choice.name, "kl": choice.context.kl, "merit": merit})
    order = sorted(range(len(offered)), key=lambda index: -entries[index]["merit"])
    return Choices([entries[index] for index in order], offered[order[0]].context.weights)


def lessons_of(run: Run, contexts: Mixture) -> list[Entry]:
    """Say a context in words; of several contexts, each lesson has the number of its context."""
    lessons = [run.codec.lessons(context) for context in contexts.contexts]
    if len(lessons) == 1:
        return [asdict(lesson) for lesson in lessons[0]]
    return [{**asdict(lesson), "cluster": number} for number, some in enumerate(lessons, start=1) for lesson in some]
