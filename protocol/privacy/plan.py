"""The privacy plan of one release: clipping, noise, cohort and modulus in one object, so that they cannot disagree.

The distributed discrete Gaussian mechanism (Kairouz, Liu, Steinke 2021, arXiv 2102.06387, section 4). Vectors are
summed as integers. Each part is clipped to its norm, scaled so that this norm becomes its *weight* times `steps`, and
rounded stochastically. The joint norm is at most `bound`, slightly above `steps` because of the rounding. Every device
adds discrete Gaussian noise; the noise of `minimum` devices has the standard deviation ``noise_multiplier * bound``. A
sum of discrete Gaussians is not a discrete Gaussian: `discreteness_loss` bounds the additional privacy loss.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyError
from ..experience import ROUNDING, ExperienceVector, Floats, clip
from ..secagg.masks import cell_type
from ..secagg.terms import WIDTHS
from .discrete import RandBelow, discrete_gaussian

Integers = NDArray[np.int64]
MAX_WRAP_PROBABILITY = 2.0**-40  # that any cell of a sum wraps around
MAX_ROUNDING_LOSS = 0.01  # relative increase of the norm by rounding, above which cells are made wider
ROUNDING_BIAS = 0.6065306597126334  # beta = exp(-1/2) of arXiv 2102.06387: a rounding above `bound` is redrawn


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a vector: name, length, L2 clipping norm, and weight in the joint norm."""

    name: str
    size: int
    norm: float
    weight: float


@dataclass(frozen=True)
class PrivacyPlan:
    """A private release of a sum over a cohort.

    Parameters
    ----------
    parts
        The parts of a vector; the squares of their weights add up to one.
    cohort
        Largest number of devices in the sum.
    minimum
        Smallest number of devices in the sum, for which the noise suffices.
    noise_multiplier
        Standard deviation of the noise of `minimum` devices over the joint clipping norm; 0 for no noise.
    bits
        Width of a cell: sums are taken modulo ``2**bits``.

    Raises
    ------
    PrivacyError
        If values are out of range or inconsistent, or cells of this width could wrap around.
    """

    parts: tuple[Part, ...]
    cohort: int
    minimum: int
    noise_multiplier: float
    bits: int

    def __post_init__(self) -> None:
        norms = [part.norm for part in self.parts] + [part.weight for part in self.parts]
        if not self.parts or any(not 0 < norm < math.inf for norm in norms) or any(p.size < 1 for p in self.parts):
            raise PrivacyError("every part of a plan needs a size, a clipping norm and a weight above zero")
        if abs(sum(part.weight**2 for part in self.parts) - 1) > 1e-9:
            raise PrivacyError("the squares of a plan's weights must add up to one")
        if not 1 <= self.minimum <= self.cohort or not 0 <= self.noise_multiplier < math.inf or self.bits not in WIDTHS:
            raise PrivacyError("a plan's minimum, noise multiplier or width is out of range")
        if self.steps < 1 or self.wrap_probability > MAX_WRAP_PROBABILITY:
            raise PrivacyError(f"cells of {self.bits} bits are too small for {self.cohort} devices and this noise")

    @classmethod
    def make(cls, parts: tuple[Part, ...], cohort: int, minimum: int, noise_multiplier: float) -> PrivacyPlan:
        """Make a plan with the narrowest cells that neither wrap around nor lose much to rounding."""
        narrow, wide = WIDTHS
        with suppress(PrivacyError):  # the cells are too narrow for this cohort or noise
            plan = cls(parts, cohort, minimum, noise_multiplier, narrow)
            if plan.bound <= plan.steps * (1 + MAX_ROUNDING_LOSS):
                return plan
        return cls(parts, cohort, minimum, noise_multiplier, wide)

    @property
    def cells(self) -> int:
        """Length of the quantised vector."""
        return sum(part.size for part in self.parts)

    @cached_property
    def steps(self) -> int:
        """Quantisation steps per joint norm of one: as many as fit if all devices put all their norm into one cell."""
        tail = math.sqrt(2 * math.log(2 * self.cells / MAX_WRAP_PROBABILITY))
        per_step = self.cohort + tail * self.noise_multiplier * 1.25 * math.sqrt(self.cohort / self.minimum)
        return int((2 ** (self.bits - 1) - 1 - self.cohort) / per_step)

    @cached_property
    def bound(self) -> float:
        """Largest joint norm of a quantised vector, in steps (arXiv 2102.06387, section 4)."""
        d, c = self.cells, float(self.steps)
        always = (c + math.sqrt(d)) ** 2
        likely = c**2 + d / 4 + math.sqrt(-2 * math.log(ROUNDING_BIAS)) * (c + math.sqrt(d) / 2)
        return math.sqrt(min(always, likely))

    @property
    def share_variance(self) -> Fraction:
        """Variance of one device's noise, in squared steps, rounded up to a multiple of 1/1024."""
        variance = (self.noise_multiplier * self.bound) ** 2 / self.minimum
        return Fraction(math.ceil(variance * 1024), 1024)

    def variance(self, name: str, devices: int) -> float:
        """Variance of the noise in each entry of a part of the sum over so many devices, in the units of the vector."""
        part = next(part for part in self.parts if part.name == name)
        return float(self.share_variance) * devices * (part.norm / (part.weight * self.steps)) ** 2

    def check(self, vector: ExperienceVector) -> None:
        """Check a vector to which its device has added noise by this plan.

        Raises
        ------
        PrivacyError
            If an entry is larger than a cell can hold, or an entry that is no part of this plan is not zero.
        """
        values, planned = vector.parts(), {part.name for part in self.parts}
        if vector.counters.values.any() or any(values[name].any() for name in values.keys() - planned):
            raise PrivacyError("a vector with noise has parts that its privacy plan does not have")
        for part in self.parts:
            largest = 2 ** (self.bits - 1) * part.norm / (part.weight * self.steps)
            if (np.abs(values[part.name]) > largest * (1 + ROUNDING)).any():
                raise PrivacyError(f"the {part.name} of a vector with noise is larger than {largest:.3g}")

    def noise_of(self, devices: int) -> float:
        """Return the noise multiplier that the shares of so many devices make together: that of `minimum` at most."""
        return self.noise_multiplier * math.sqrt(min(devices, self.minimum) / self.minimum)

    @property
    def discreteness_loss(self) -> float:
        """Bound of the additional privacy loss because a sum of discrete Gaussians is not a discrete Gaussian."""
        return self.loss_of_sum(self.cohort)

    def loss_of_sum(self, devices: int) -> float:
        """Return this bound for the sum of the noise of so many devices; zero for that of one.

        Per cell ten times the sum in lemma 15 of arXiv 2102.06387; negligible if the noise spans a few steps.
        """
        if not self.noise_multiplier:
            return 0.0
        variance = float(self.share_variance)
        per_cell = sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, devices))
        return 10 * self.cells * per_cell

    @property
    def wrap_probability(self) -> float:
        """Upper bound of the probability that any cell of the sum wraps around."""
        deviation = math.sqrt(float(self.share_variance) * self.cohort)
        headroom = 2 ** (self.bits - 1) - 1 - self.cohort * (self.steps + 1)
        return 2 * self.cells * math.exp(-((headroom / deviation) ** 2) / 2) if deviation else 0.0

    @property
    def digest(self) -> str:
        """Hash of this plan, 16 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def encode(self, values: Mapping[str, Floats], below: RandBelow = secrets.randbelow) -> Integers:
        """Quantise a vector and add this device's noise.

        Parameters
        ----------
        values
            The parts of the vector by name, before clipping.
        below
            Source of randomness.

        Returns
        -------
        array
            Shape ``(cells,)``, in steps.

        Raises
        ------
        PrivacyError
            If a part has the wrong length or an entry is not finite.
        """
        return self.quantised(values, below) + self.noise(below)

    def quantised(self, values: Mapping[str, Floats], below: RandBelow = secrets.randbelow) -> Integers:
        """Clip, scale and round a vector, without noise; shape ``(cells,)``, in steps."""
        clipped = [clip(np.asarray(values[p.name], np.float64), p.norm) * (p.weight / p.norm) for p in self.parts]
        scaled = np.concatenate(clipped) * self.steps
        if scaled.shape != (self.cells,) or not np.isfinite(scaled).all():
            raise PrivacyError(f"a vector of {scaled.shape} numbers does not fit a plan of {self.cells} cells")
        return self._rounded(scaled, below)

    def noise(self, below: RandBelow = secrets.randbelow) -> Integers:
        """One device's noise, shape ``(cells,)``, in steps."""
        return discrete_gaussian(self.share_variance, self.cells, below)

    def decode(self, total: NDArray[np.unsignedinteger[Any]]) -> dict[str, Floats]:
        """Convert a sum modulo ``2**bits``, shape ``(cells,)``, to parts in the units of the vectors."""
        whole = np.asarray(total).astype(cell_type(self.bits)).view(f"<i{self.bits // 8}").astype(np.float64)
        ends = np.cumsum([part.size for part in self.parts])
        return {
            part.name: whole[end - part.size : end] * (part.norm / (part.weight * self.steps))
            for part, end in zip(self.parts, ends, strict=True)
        }

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """Read what `to_json` wrote; raise `PrivacyError` if the text is malformed or the plan inconsistent."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "parts": tuple(Part(**part) for part in fields["parts"])})
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            raise PrivacyError("a privacy plan cannot be read") from error

    def _rounded(self, scaled: Floats, below: RandBelow) -> Integers:
        """Round stochastically, repeatedly until the norm is within `bound`.

        Without noise, round to the nearest integer, which makes runs reproducible.
        """
        if not self.noise_multiplier:
            return np.rint(scaled).astype(np.int64)
        floor = np.floor(scaled)
        fraction = scaled - floor
        while True:
            uniform = np.array([below(2**32) for _ in range(len(scaled))]) / 2**32
            whole: Integers = (floor + (uniform < fraction)).astype(np.int64)
            if float(np.linalg.norm(whole.astype(np.float64))) <= self.bound:
                return whole
