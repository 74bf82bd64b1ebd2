"""How the fleet was in a cycle: the counts in all its trials, from the outcomes that they have left on disk."""

from __future__ import annotations

import numpy as np

from ...protocol.records.summary import FleetHealth
from ...protocol.trials import HEALTH_WEIGHT
from ..gate import HEALTH, Differences, sample_of
from ..health import fleet_health
from .phases import cycle_folder
from .run import Run


def health_in(run: Run, cycle: int) -> FleetHealth | None:
    """Add up what devices said of themselves in the trials of a cycle; None if they were asked nothing.

    Every trial counts, whatever was tried and whatever came of it.
    """
    if not run.config.trial.health:
        return None
    trial = run.config.trial
    files = sorted(cycle_folder(run.folder, cycle).glob("*.npz"))
    outcomes = [run.phases.load(cycle, file.stem).arrays for file in files]
    samples = [sample_of(arrays) for arrays in outcomes if HEALTH in arrays]
    known = [s for s in samples if isinstance(s, Differences)]
    counts = [s.health for s in known if s.health is not None]
    if not counts:
        return None
    # The noise of an entry, which the gate knows in units of its own.
    variance = sum(sample.variance for sample in known) / (trial.games * trial.clip * HEALTH_WEIGHT) ** 2
    return fleet_health(np.sum(counts, axis=0), variance)
