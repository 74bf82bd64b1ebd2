"""The running sum of experience over cycles that promoted nothing, kept with the last of them.

Such cycles are all about the same version, and a context is made of all their experience. Adding up every cycle anew
would cost more with each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...protocol.experience import Aggregate, ExperienceVector, VectorSpec
from .phases import Outcome

NAME = "streak"


@dataclass(frozen=True, slots=True)
class Streak:
    """A sum of aggregates about one version.

    Parameters
    ----------
    sums
        Sum of the vectors and its rounding error, float64 of shape ``(2, size)``; None if there is nothing yet. The two
        together are exact to about 100 bits (Knuth's two-sum), so that the sum is the correctly rounded one of
        `fedoel.protocol.experience.total`.
    cohort, noise
        Sums of the aggregates' fields of that name.
    """

    sums: NDArray[np.float64] | None = None
    cohort: int = 0
    noise: float = 0.0

    def plus(self, aggregate: Aggregate) -> Streak:
        """Return the sum with one more aggregate."""
        added = aggregate.vector.to_array().astype(np.float64)
        before, error = np.zeros((2, added.size)) if self.sums is None else self.sums
        rounded = before + added
        part = rounded - before
        error = error + ((before - (rounded - part)) + (added - part))
        whole = rounded + error
        sums = np.stack([whole, error - (whole - rounded)])
        return Streak(sums, self.cohort + aggregate.cohort, self.noise + aggregate.noise)

    def aggregate(self, spec: VectorSpec) -> Aggregate | None:
        """Return the sum as one aggregate without words and parts; None if there is nothing."""
        if self.sums is None:
            return None
        vector = ExperienceVector.unchecked(spec, self.sums[0].astype(np.float32))
        return Aggregate(vector, self.cohort, self.noise)

    def beside(self, outcome: Outcome) -> Outcome:
        """Return what an exchange left together with this sum."""
        values = {**outcome.values, NAME: {"cohort": self.cohort, "noise": self.noise}}
        arrays = outcome.arrays if self.sums is None else {**outcome.arrays, NAME: self.sums}
        return Outcome(values, arrays)


def streak_in(outcome: Outcome) -> Streak | None:
    """Read what `Streak.beside` put beside an outcome; None if a release before this one wrote it."""
    kept = outcome.values.get(NAME)
    return None if kept is None else Streak(outcome.arrays.get(NAME), kept["cohort"], kept["noise"])
