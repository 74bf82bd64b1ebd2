"""Stage `measure`: what is reported of a version. Nothing here decides anything."""

from __future__ import annotations

from dataclasses import asdict

from ...games.player import Advance
from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Measures, Stats
from ..evaluation import summarise
from ..gate import Evidence, Trial
from ..summary import results_of
from .phases import Form, Outcome, record_form
from .public_games import Contender
from .run import Run, Version

MEASURES = record_form(Measures)


def _write(first: tuple[Measures, Evidence]) -> Outcome:
    measures, evidence = first
    return Outcome({**to_json(measures), "gate": to_json(evidence.stats)}, asdict(evidence.trial))


def _read(outcome: Outcome) -> tuple[Measures, Evidence]:
    values = dict(outcome.values)
    evidence = Evidence(Trial(**outcome.arrays), from_json(Stats, values.pop("gate")))
    return from_json(Measures, values), evidence


FIRST_MEASURES = Form(_write, _read)


def measure(run: Run, version: Version, cycle: int) -> Measures:
    """Measure a version after a cycle."""
    return run.phases.run(
        cycle, "evaluate", MEASURES, lambda advance: _measure(run, run.contender(version.adapter), advance),
        len(run.plan.measured),
    )  # fmt: skip


def measure_first(run: Run, version: Version) -> tuple[Measures, Evidence]:
    """Measure the first version, and let the gate try it."""

    def work(advance: Advance) -> tuple[Measures, Evidence]:
        contender = run.contender(version.adapter)
        evidence = run.gate.evidence(contender, 1, advance)
        return _measure(run, contender, advance), evidence

    total = len(run.plan.measured) + run.gate.episodes
    return run.phases.run(0, "evaluate", FIRST_MEASURES, work, total)


def _measure(run: Run, contender: Contender, advance: Advance) -> Measures:
    held_out = results_of(run.public.rollouts(contender, run.plan.held_out, "held-out", advance))
    transfer = {
        name: summarise(run.public.rollouts(contender, games, "held-out", advance))
        for name, games in run.plan.transfer.items()
    }
    return Measures(held_out=held_out, transfer=transfer, probes=run.learner.probe(contender.adapter))
