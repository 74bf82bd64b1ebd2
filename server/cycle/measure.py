"""Stage `measure`: what is reported of a version. Nothing here decides anything."""

from __future__ import annotations

from dataclasses import dataclass

from ...games.player import Advance
from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Measures, Stats
from ..evaluation import summarise
from ..gate import Evidence, Trial
from ..summary import results_of
from .contender import Contender
from .phases import Form, Outcome
from .run import Run
from .state import Version


@dataclass(frozen=True, slots=True)
class FirstMeasured:
    """Results of the first version, and the gate's evidence of it."""

    measures: Measures
    evidence: Evidence


def _read(outcome: Outcome) -> FirstMeasured:
    values = dict(outcome.values)
    evidence = Evidence(Trial.from_arrays(outcome.arrays), from_json(Stats, values.pop("gate")))
    return FirstMeasured(from_json(Measures, values), evidence)


MEASURES = Form(lambda measures: Outcome(to_json(measures)), lambda outcome: from_json(Measures, dict(outcome.values)))
FIRST_MEASURED = Form(
    lambda first: Outcome(
        {**to_json(first.measures), "gate": to_json(first.evidence.stats)}, first.evidence.trial.to_arrays()
    ),
    _read,
)


def measure(run: Run, version: Version, cycle: int) -> Measures:
    """Measure a version after a cycle."""
    return run.phases.run(
        cycle, "evaluate", MEASURES, lambda advance: _measure(run, run.contender(version.adapter), advance),
        len(run.plan.measured),
    )  # fmt: skip


def measure_first(run: Run, version: Version) -> FirstMeasured:
    """Measure the first version, and let the gate try it."""

    def work(advance: Advance) -> FirstMeasured:
        contender = run.contender(version.adapter)
        evidence = run.gate.evidence(contender, advance)
        return FirstMeasured(_measure(run, contender, advance), evidence)

    total = len(run.plan.measured) + run.gate.episodes
    return run.phases.run(0, "evaluate", FIRST_MEASURED, work, total)


def _measure(run: Run, contender: Contender, advance: Advance) -> Measures:
    held_out = results_of(run.public.rollouts(contender, run.plan.held_out, "held-out", advance))
    transfer = {
        name: summarise(run.public.rollouts(contender, games, "held-out", advance))
        for name, games in run.plan.transfer.items()
    }
    return Measures(held_out=held_out, transfer=transfer, probes=run.learner.probe(contender.adapter))
