"""The experience vector: what a device sends instead of its trajectories.

    E_i = [ g_i ; F_i ; counters ]

g_i is the policy gradient of the client's return with respect to the teacher's context, F_i the diagonal of the Fisher
information beside it (natural policy gradient, Kakade 2001). Everything in it is a sum over turns, so vectors add up
over trajectories and over clients. The counters ride along, so that no metric leaves a device in the clear.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import VectorError

Vector = NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)
BASE_COUNTERS = 5
WIRE_TYPES = (np.dtype(np.float16), np.dtype(np.float32))  # in which vectors and adapters travel
ROUNDING = 1e-3  # how much longer half precision can make a clipped vector


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """What both sides must agree on before a vector means anything.

    Parameters
    ----------
    codec
        Name of the codec.
    dimension
        Length of the context parameter w, and so of g and of F; 0 where contexts are words.
    vocabulary
        Hash of whatever gives the coordinates their meaning.
    policy_version
        The policy whose trajectories the vector is about.
    families
        Names of the game families, in the order of the counters.
    horizon
        Steps for which returns are counted.
    clipping_norm, fisher_norm
        Largest L2 norms of g and of F that a device may send.
    """

    codec: str
    dimension: int
    vocabulary: str
    policy_version: str
    families: tuple[str, ...]
    horizon: int
    clipping_norm: float
    fisher_norm: float

    @property
    def counters_shape(self) -> tuple[int, int]:
        """Families, and counters for each: five totals, then return sums and visit counts by step."""
        return len(self.families), BASE_COUNTERS + 2 * self.horizon

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        families, counters = self.counters_shape
        return 2 * self.dimension + families * counters

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length of each part that can be summed on its own."""
        return {"gradient": self.dimension, "fisher": self.dimension}

    @property
    def norms(self) -> Mapping[str, float]:
        """Clipping norm of each such part."""
        return {"gradient": self.clipping_norm, "fisher": self.fisher_norm}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name this specification."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> VectorSpec:
        """Read what `to_json` wrote.

        Raises
        ------
        VectorError
            If fields are missing, unknown or of the wrong type.
        """
        try:
            fields = json.loads(text)
            spec = cls(**{**fields, "families": tuple(fields["families"])})
            spec._check_types()
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise VectorError(f"this vector specification cannot be read: {error}") from error
        if spec.dimension < 0 or spec.horizon < 1 or not spec.families:
            raise VectorError(
                f"vector specification {spec.codec!r} has no steps or families, or fewer than no coordinates"
            )
        return spec

    def _check_types(self) -> None:
        words = (self.codec, self.vocabulary, self.policy_version, *self.families)
        sizes, norms = (self.dimension, self.horizon), (self.clipping_norm, self.fisher_norm)
        if not (
            all(isinstance(word, str) for word in words)
            and all(type(size) is int for size in sizes)
            and all(type(norm) is float and 0 < norm < math.inf for norm in norms)
        ):
            raise TypeError("a field has the wrong type or is out of range")


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals by family and by step; `values` has shape ``VectorSpec.counters_shape``."""

    values: Vector

    @property
    def episodes(self) -> Vector:
        return self.values[:, 0]

    @property
    def wins(self) -> Vector:
        return self.values[:, 1]

    @property
    def turns(self) -> Vector:
        return self.values[:, 2]

    @property
    def tokens(self) -> Vector:
        return self.values[:, 3]

    @property
    def score(self) -> Vector:
        return self.values[:, 4]

    @property
    def returns(self) -> Vector:
        """Sums of returns-to-go, shape (families, horizon)."""
        return self.values[:, BASE_COUNTERS : BASE_COUNTERS + self.horizon]

    @property
    def visits(self) -> Vector:
        """How many episodes reached each step, shape (families, horizon)."""
        return self.values[:, BASE_COUNTERS + self.horizon :]

    @property
    def horizon(self) -> int:
        return int(self.values.shape[1] - BASE_COUNTERS) // 2

    def baseline(self) -> Vector:
        """Mean return-to-go by family and step; zero where nothing was seen."""
        return np.divide(self.returns, self.visits, out=np.zeros_like(self.returns), where=self.visits > 0)


@dataclass(frozen=True, slots=True)
class ExperienceVector:
    """One client's experience, or a sum of several."""

    spec: VectorSpec
    gradient: Vector
    fisher: Vector
    counters: Counters

    def __post_init__(self) -> None:
        parts = (
            (self.gradient.shape, (self.spec.dimension,)),
            (self.fisher.shape, (self.spec.dimension,)),
            (self.counters.values.shape, self.spec.counters_shape),
        )
        for shape, expected in parts:
            if shape != expected:
                raise VectorError(f"a part of an experience vector has shape {shape}, not {expected}")

    def to_array(self) -> Vector:
        """Flatten to shape ``(spec.size,)``."""
        return np.concatenate([self.gradient, self.fisher, self.counters.values.ravel()]).astype(np.float32)

    def parts(self) -> dict[str, NDArray[np.float64]]:
        """The parts that can be summed on their own."""
        return {"gradient": self.gradient.astype(np.float64), "fisher": self.fisher.astype(np.float64)}

    @classmethod
    def from_parts(cls, spec: VectorSpec, parts: Mapping[str, NDArray[np.float64]]) -> ExperienceVector:
        """Rebuild a sum from its parts; those that are missing are zero, and so are the counters."""
        gradient, fisher = (
            parts.get(name, np.zeros(spec.dimension)).astype(np.float32) for name in ("gradient", "fisher")
        )
        return cls(spec, gradient, fisher, Counters(np.zeros(spec.counters_shape, np.float32)))

    @classmethod
    def from_array(cls, spec: VectorSpec, array: NDArray[np.generic], bounded: bool = True) -> ExperienceVector:
        """Rebuild a vector that came from outside.

        Parameters
        ----------
        bounded
            Whether norms and signs must be those of a clipped vector; noise keeps neither.

        Raises
        ------
        VectorError
            If it is mis-sized, neither float16 nor float32, not finite, or has a negative Fisher diagonal or counter,
            or norms above the clipping norms.
        """
        if array.shape != (spec.size,) or array.dtype not in WIRE_TYPES:
            raise VectorError(
                f"expected {spec.size} numbers, float16 or float32, got {array.dtype} of shape {array.shape}"
            )
        values = np.asarray(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise VectorError("an experience vector holds numbers that are not finite")
        vector = cls.unchecked(spec, values)
        if bounded:
            vector._check_bounds()
        return vector

    @classmethod
    def unchecked(cls, spec: VectorSpec, values: Vector) -> ExperienceVector:
        """Rebuild a vector of our own, such as a sum, which the clipping norms do not bound."""
        d = spec.dimension
        return cls(spec, values[:d], values[d : 2 * d], Counters(values[2 * d :].reshape(spec.counters_shape)))

    def _check_bounds(self) -> None:
        for name, part, bound in (
            ("gradient", self.gradient, self.spec.clipping_norm),
            ("Fisher diagonal", self.fisher, self.spec.fisher_norm),
        ):
            norm = float(np.linalg.norm(part.astype(np.float64)))  # squares of what is sent may overflow float32
            if norm > bound * (1 + ROUNDING):
                raise VectorError(f"{name} has norm {norm:.3g}, above the clipping norm {bound:.3g}")
        if (self.fisher < 0).any() or (self.counters.visits < 0).any() or (self.counters.values[:, :4] < 0).any():
            raise VectorError("a Fisher diagonal or a counter is negative")

    def clipped(self) -> ExperienceVector:
        """Scale g and F down to the clipping norms where they are longer."""
        return ExperienceVector(
            self.spec,
            clip(self.gradient, self.spec.clipping_norm),
            clip(self.fisher, self.spec.fisher_norm),
            self.counters,
        )


@dataclass(frozen=True, slots=True)
class Contribution:
    """One accepted vector and the node that sent it, and what that said in words where a codec sends them."""

    node_id: int
    vector: ExperienceVector
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What a strategy makes of a cohort's contributions: one vector, on the scale of a sum over `cohort` clients.

    `noise` is the variance of the noise that was added to each number of its gradient. `parts` are groups of the cohort
    that are to have contexts of their own; without any, all share one. `words` is what the cohort said where a codec
    sends words.
    """

    vector: ExperienceVector
    cohort: int
    noise: float = 0.0
    parts: tuple[Aggregate, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all its numbers, and those of its parts, are finite."""
        return bool(np.isfinite(self.vector.to_array()).all()) and all(part.finite for part in self.parts)


def clip(values: NDArray[Real], norm: float) -> NDArray[Real]:
    """Scale to an L2 norm of at most `norm`, in the precision of the values."""
    length = float(np.linalg.norm(values))
    return values if length <= norm else values * values.dtype.type(norm / length)


def total(vectors: Iterable[ExperienceVector]) -> ExperienceVector:
    """Sum vectors of one specification, exactly rounded, so that the order in which they came does not matter.

    Raises
    ------
    VectorError
        If there are none, or their specifications differ.
    """
    chosen = list(vectors)
    if not chosen:
        raise VectorError("there is no experience vector to add up: no client sent one that could be used")
    spec = chosen[0].spec
    if any(vector.spec != spec for vector in chosen):
        raise VectorError("experience vectors of different specifications cannot be added")
    stacked = np.stack([vector.to_array() for vector in chosen])
    flat = np.array([math.fsum(column) for column in stacked.T.tolist()]).astype(np.float32)
    d = spec.dimension
    return ExperienceVector(spec, flat[:d], flat[d : 2 * d], Counters(flat[2 * d :].reshape(spec.counters_shape)))
