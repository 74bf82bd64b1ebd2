"""Stage `measure`: what is reported of a version. Nothing here decides anything."""

from __future__ import annotations

from dataclasses import replace

from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Measures, Stats
from ..events import Advance
from ..gate import Evidence, sample_of
from .contender import Contender, Version
from .phases import Form, Outcome, record_form
from .run import Run

MEASURES = record_form(Measures)


def _write(first: tuple[Measures, Evidence]) -> Outcome:
    measures, evidence = first
    return Outcome({**to_json(measures), "gate": to_json(evidence.stats)}, evidence.sample.arrays())


def _read(outcome: Outcome) -> tuple[Measures, Evidence]:
    values = dict(outcome.values)
    evidence = Evidence(sample_of(outcome.arrays), from_json(Stats, values.pop("gate")))
    return from_json(Measures, values), evidence


FIRST_MEASURES = Form(_write, _read)


def measure(
    run: Run, version: Version, cycle: int, evidence: Evidence | None = None, name: str = "evaluate"
) -> Measures:
    """Measure a version after a cycle, in a phase of this name."""
    return run.phases.run(
        cycle, name, MEASURES, lambda advance: _measure(run, run.contender(version.adapter), evidence, advance),
        run.report.episodes,
    )  # fmt: skip


def measure_first(run: Run, version: Version) -> tuple[Measures, Evidence]:
    """Measure the first version, and let the gate try it."""

    def work(advance: Advance) -> tuple[Measures, Evidence]:
        contender = run.contender(version.adapter)
        evidence = run.gate.evidence(0, version, contender, 1, advance)
        return _measure(run, contender, evidence, advance), evidence

    total = run.report.episodes + run.gate.episodes
    return run.phases.run(0, "evaluate", FIRST_MEASURES, work, total)


def _measure(run: Run, contender: Contender, evidence: Evidence | None, advance: Advance) -> Measures:
    return replace(run.report.measures(contender, evidence, advance), probes=run.learner.probe(contender.adapter))
