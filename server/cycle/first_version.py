"""Cycle 0: the warm start makes the first version, and the floors say what play without any learning is worth."""

from __future__ import annotations

from dataclasses import replace

from ...codecs.codec import HasParameters
from ...codecs.encoder import Parameters
from ...protocol.records.summary import Floors
from ..events import Advance
from .distil import TRAINED, Trained
from .phases import Form, Outcome, record_form
from .run import Run

FLOORS = record_form(Floors)
PARAMETERS: Form[Parameters] = Form(lambda parameters: Outcome({}, parameters), lambda outcome: outcome.arrays)


def with_parameters(run: Run) -> Run:
    """Let the codec compute its public parameters, if it has any, from states of uniform play."""
    codec = run.codec
    if not isinstance(codec, HasParameters):
        return run

    def work(advance: Advance) -> Parameters:
        parameters = codec.parameters(run.learner.policy({}), run.public.for_parameters())
        run.learner.forget()  # the warm start must not depend on what was cached here
        return parameters

    parameters = run.phases.run(0, "codec", PARAMETERS, work)
    return replace(run, codec=codec.with_parameters(parameters), parameters=parameters)


def warm_start(run: Run) -> Trained:
    """Train the first adapter on rollouts of uniform play."""

    def work(advance: Advance) -> Trained:
        adapter = run.learner.warm_start(run.public.uniform(), advance)
        return Trained(run.learner.policy(adapter).version, adapter)

    return run.phases.run(0, "warm-start", TRAINED, work, run.config.warm_start.steps)


def floors(run: Run) -> Floors:
    """Return the floors of the run's report."""
    return run.phases.run(0, "floors", FLOORS, run.report.floors, run.report.episodes)
