"""Stage `measure`: what is reported of a version. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ...games.player import Advance
from ..evaluation import summarise
from ..gate import Evidence, Trial
from ..summary import Entry, stats_of
from .contender import Contender
from .phases import Form, Outcome
from .run import Run
from .state import Version


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of a version.

    Parameters
    ----------
    held_out
        On held-out games of the families that are learned from, overall and by family.
    transfer
        On held-out games of kinds that nobody learns from, by name.
    probes
        Outside of games, beside the base model.
    """

    held_out: Entry
    transfer: Entry
    probes: Mapping[str, float]

    @property
    def entry(self) -> Entry:
        """The same as the summary says it."""
        return {"held_out": self.held_out, "transfer": self.transfer, "probes": self.probes}


@dataclass(frozen=True, slots=True)
class FirstMeasured:
    """Results of the first version, and the gate's evidence of it."""

    measured: Measured
    evidence: Evidence


def _read(outcome: Outcome) -> Measured:
    return Measured(*(outcome.values[name] for name in ("held_out", "transfer", "probes")))


MEASURED = Form(lambda measured: Outcome(measured.entry), _read)
FIRST_MEASURED = Form(
    lambda first: Outcome({**first.measured.entry, "gate": first.evidence.stats}, first.evidence.trial.to_arrays()),
    lambda outcome: FirstMeasured(_read(outcome), Evidence(Trial.from_arrays(outcome.arrays), outcome.values["gate"])),
)


def measure(run: Run, version: Version, cycle: int) -> Measured:
    """Measure a version after a cycle."""
    return run.phases.run(
        cycle, "evaluate", MEASURED, lambda advance: _measure(run, run.contender(version.adapter), advance),
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


def _measure(run: Run, contender: Contender, advance: Advance) -> Measured:
    held_out = stats_of(run.public.rollouts(contender, run.plan.held_out, "held-out", advance))
    transfer = {
        name: asdict(summarise(run.public.rollouts(contender, games, "held-out", advance)))
        for name, games in run.plan.transfer.items()
    }
    return Measured(held_out, transfer, run.learner.probe(contender.adapter))
