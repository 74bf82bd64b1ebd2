"""One plan of a private release, from which clipping, noise, cohort, modulus and accounting all follow.

What is summed are whole numbers: each part of a vector is clipped to its norm, scaled so that its norm becomes its
*weight* times `steps`, and rounded at random, up or down. A joint norm of one unit therefore becomes `bound` steps, a
little more than `steps` because of the rounding (Kairouz et al. 2021, arXiv 2102.06387, section 4). Every device adds a
discrete Gaussian share; the shares of `minimum` devices together have the standard deviation `noise_multiplier` times
`bound`. Their sum is not itself a discrete Gaussian: `excess` says how far its privacy loss is off.
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
from ..experience import clip
from ..secagg.masks import cell_type
from ..secagg.terms import WIDTHS
from .discrete import Below, discrete_gaussian

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
WRAP = 2.0**-40  # largest chance that any cell of a sum wraps around
COARSE = 0.01  # relative loss to rounding beyond which cells are made wider
ROUNDING_CHANCE = 0.6065306597126334  # exp(-1/2): a rounding whose norm is over the bound is drawn again


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a vector: its name, size, clipping norm, and share of the joint norm."""

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
        What is summed; the squares of the weights add up to one.
    cohort
        Most devices that can be in the sum.
    minimum
        Fewest devices whose noise makes the guarantee.
    noise_multiplier
        Standard deviation of the noise in joint norms; 0 for none.
    bits
        Width of a cell.
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
        if self.steps < 1 or self.wraps > WRAP:
            raise PrivacyError(f"cells of {self.bits} bits are too small for {self.cohort} devices and this noise")

    @classmethod
    def make(cls, parts: tuple[Part, ...], cohort: int, minimum: int, noise_multiplier: float) -> PrivacyPlan:
        """Choose the narrowest cells that lose little to rounding."""
        narrow, wide = WIDTHS
        with suppress(PrivacyError):  # too narrow for so many devices, or so much noise
            plan = cls(parts, cohort, minimum, noise_multiplier, narrow)
            if plan.bound <= plan.steps * (1 + COARSE):
                return plan
        return cls(parts, cohort, minimum, noise_multiplier, wide)

    @property
    def cells(self) -> int:
        """Length of the vector."""
        return sum(part.size for part in self.parts)

    @cached_property
    def steps(self) -> int:
        """Whole steps to a joint norm of one: as many as fit when every device puts all it has into one cell."""
        tail = math.sqrt(2 * math.log(2 * self.cells / WRAP))
        per_step = self.cohort + tail * self.noise_multiplier * 1.25 * math.sqrt(self.cohort / self.minimum)
        return int((2 ** (self.bits - 1) - 1 - self.cohort) / per_step)

    @cached_property
    def bound(self) -> float:
        """Largest joint norm of what is summed, in steps, after rounding."""
        d, c = self.cells, float(self.steps)
        certain = (c + math.sqrt(d)) ** 2
        likely = c**2 + d / 4 + math.sqrt(-2 * math.log(ROUNDING_CHANCE)) * (c + math.sqrt(d) / 2)
        return math.sqrt(min(certain, likely))

    @property
    def share_variance(self) -> Fraction:
        """Variance of one device's noise, in squared steps; rounded up."""
        variance = (self.noise_multiplier * self.bound) ** 2 / self.minimum
        return Fraction(math.ceil(variance * 1024), 1024)

    def variance(self, name: str, devices: int) -> float:
        """Variance of the noise in each number of a part, when so many devices are in the sum."""
        part = next(part for part in self.parts if part.name == name)
        return float(self.share_variance) * devices * (part.norm / (part.weight * self.steps)) ** 2

    @property
    def excess(self) -> float:
        """Bound of how far a sum of discrete Gaussians is from one, as an additive term of the privacy loss.

        Ten times the sum in lemma 15 of arXiv 2102.06387, for each cell; nothing to speak of from a few steps on.
        """
        if not self.noise_multiplier:
            return 0.0
        variance = float(self.share_variance)
        each = sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, self.cohort))
        return 10 * self.cells * each

    @property
    def wraps(self) -> float:
        """Bound of the chance that some cell of the sum wraps around."""
        spread = math.sqrt(float(self.share_variance) * self.cohort)
        room = 2 ** (self.bits - 1) - 1 - self.cohort * (self.steps + 1)
        return 2 * self.cells * math.exp(-((room / spread) ** 2) / 2) if spread else 0.0

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name this plan."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def encode(self, values: Mapping[str, Floats], below: Below = secrets.randbelow) -> Whole:
        """Clip, scale, round, and add this device's share of the noise, shape ``(cells,)``."""
        return self.steps_of(values, below) + self.noise(below)

    def steps_of(self, values: Mapping[str, Floats], below: Below = secrets.randbelow) -> Whole:
        """Clip, scale and round: what a device contributes, without noise."""
        clipped = [clip(np.asarray(values[p.name], np.float64), p.norm) * (p.weight / p.norm) for p in self.parts]
        scaled = np.concatenate(clipped) * self.steps
        if scaled.shape != (self.cells,) or not np.isfinite(scaled).all():
            raise PrivacyError(f"a vector of {scaled.shape} numbers does not fit a plan of {self.cells} cells")
        return self._rounded(scaled, below)

    def noise(self, below: Below = secrets.randbelow) -> Whole:
        """One device's share of the noise."""
        return discrete_gaussian(self.share_variance, self.cells, below)

    def decode(self, total: NDArray[np.unsignedinteger[Any]]) -> dict[str, Floats]:
        """Read a sum modulo ``2**bits`` back, by part, on the scale of the vectors."""
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
        """Read what `to_json` wrote; raises `PrivacyError` if it is something else."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "parts": tuple(Part(**part) for part in fields["parts"])})
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            raise PrivacyError("a privacy plan cannot be read") from error

    def _rounded(self, scaled: Floats, below: Below) -> Whole:
        """Round up with the chance of the fraction; again, until the norm is within the bound.

        Without noise there is nothing to protect, and rounding to the nearest makes runs repeatable.
        """
        if not self.noise_multiplier:
            return np.rint(scaled).astype(np.int64)
        floor = np.floor(scaled)
        fraction = scaled - floor
        while True:
            uniform = np.array([below(2**32) for _ in range(len(scaled))]) / 2**32
            whole: Whole = (floor + (uniform < fraction)).astype(np.int64)
            if float(np.linalg.norm(whole.astype(np.float64))) <= self.bound:
                return whole
