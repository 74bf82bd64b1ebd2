"""Stage `context`: from a cycle's aggregates to the teacher's context, one natural gradient step for each exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...codecs.context import TeacherContext, divergence, longer, no_context
from ...policies.policy import Policy
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...strategies.robust import cosine
from .collect import aggregates_about, experience_about, has_parts, numbered, summed
from .contender import Version
from .mixture import Mixture
from .phases import Form, Outcome
from .residual import residual_of
from .run import Run, States


def _write(context: TeacherContext) -> Outcome:
    values = {"kl": context.kl, "words": list(context.words)}
    return Outcome(values, {"weights": context.weights, "support": context.fisher})


def _read(outcome: Outcome) -> TeacherContext:
    words = tuple(outcome.values.get("words", ()))
    return TeacherContext(outcome.arrays["weights"], outcome.arrays["support"], outcome.values["kl"], words)


CONTEXT = Form(_write, _read)


def contexts_of(run: Run, states: States, exchanges: int) -> list[TeacherContext]:
    """Return the contexts of a cycle: what it begins with, and one after each exchange.

    Parameters
    ----------
    exchanges
        How many of the cycle's exchanges are over.
    """
    contexts = [residual_of(run, states) or no_context(run.codec.encoder.dimension)]
    for exchange in range(1, exchanges + 1):
        aggregate = experience_about(run, states.version, states.cycle, exchange)
        name = numbered("context", exchange)
        contexts.append(_step(run, states, contexts, aggregate, name) if aggregate else contexts[-1])
    return contexts


def mixture_of(run: Run, states: States) -> Mixture:
    """Return what a cycle's exchanges gave together: one context, or one for each part of their aggregate.

    Each is lengthened as `context.teacher-kl` asks.
    """
    parts = _parts(run, states.version, states.cycle)
    if len(parts) < 2:
        return lengthened(run, states, Mixture.of(contexts_of(run, states, len(run.exchanges))[-1]))
    bare = [no_context(run.codec.encoder.dimension)]
    contexts = [_step(run, states, bare, part, f"context-part-{number}") for number, part in enumerate(parts, start=1)]
    return lengthened(run, states, Mixture.weighted(contexts, parts, run.plan.families))


def lengthened(run: Run, states: States, mixture: Mixture) -> Mixture:
    """Return every context as long as `context.teacher_kl` asks: see `fedoel.codecs.context.longer`."""
    target = run.config.context.teacher_kl

    def longer_of(context: TeacherContext, advance: object) -> TeacherContext:
        return longer(context, target, partial(_measured, run, states, run.learner.policy(states.version.adapter)))

    contexts = tuple(
        run.phases.run(states.cycle, f"context-{number}-lengthened", CONTEXT, partial(longer_of, context))
        if context.kl < target and context.weights.any()
        else context
        for number, context in enumerate(mixture.contexts, start=1)
    )
    return replace(mixture, contexts=contexts)


def halved(run: Run, states: States, mixture: Mixture, halving: int) -> Mixture:
    """Return half of every context: a step may lead in the right direction and too far."""

    def half_of(context: TeacherContext, advance: object) -> TeacherContext:
        half = replace(context, weights=context.weights / np.float32(2))
        return _measured(run, states, run.learner.policy(states.version.adapter), half)

    contexts = tuple(
        run.phases.run(states.cycle, f"context-{number}-half-{halving}", CONTEXT, partial(half_of, context))
        for number, context in enumerate(mixture.contexts, start=1)
    )
    return replace(mixture, contexts=contexts)


def _step(
    run: Run, states: States, contexts: Sequence[TeacherContext], aggregate: Aggregate, name: str
) -> TeacherContext:
    """Take the next step from the last of the contexts, under which the aggregate was played."""
    exchange, before = len(contexts), contexts[-1]

    def work(advance: object) -> TeacherContext:
        turns = states.under(exchange, contexts)
        policy = run.learner.policy(states.version.adapter)
        complete = _with_fisher(run, states, aggregate, run.codec.teacher(policy, before), turns)
        return _measured(run, states, policy, run.codec.step(complete, policy, turns, run.config.context, before))

    return run.phases.run(states.cycle, name, CONTEXT, work)


def _measured(run: Run, states: States, policy: Policy, context: TeacherContext) -> TeacherContext:
    """Return a context with its KL from the bare policy, on turns that the bare policy has played."""
    turns = states.without_context()
    return replace(context, kl=divergence(run.codec.teacher_log_probs(policy, turns, context), turns))


def _parts(run: Run, version: Version, cycle: int) -> list[Aggregate]:
    """Return the parts of a cycle's aggregate, each with those of earlier aggregates that are most like it."""
    if len(run.exchanges) > 1 or not has_parts(run, cycle):
        return []
    newest, *earlier = [aggregate.parts for aggregate in aggregates_about(run, version, cycle, 1)] or [()]
    groups = [[part] for part in newest]
    for old in [part for parts in earlier for part in parts if groups]:
        likeness = [cosine(old.vector.gradient, part.vector.gradient) for part in newest]
        groups[int(np.argmax(likeness))].append(old)
    return [summed(group) for group in groups]


def _with_fisher(run: Run, states: States, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn]) -> Aggregate:
    """Fill in a Fisher diagonal that the cohort was not asked for, scaled to as much play as the cohort's."""
    if aggregate.vector.fisher.any() or not aggregate.vector.spec.dimension:
        return aggregate
    scored = [turn for turn in turns if turn.scored]
    _, fisher = run.codec.encoder.gradient_and_fisher(policy, scored, np.zeros(len(scored)))
    scaled = (states.scale(aggregate, turns) * fisher).astype(np.float32)
    return replace(aggregate, vector=replace(aggregate.vector, fisher=scaled))
