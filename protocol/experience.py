"""The experience vector: what a device sends instead of its trajectories.

    E_i = [ g_i ; F_i ; counters ]

g_i is the policy gradient of the client's return with respect to the teacher's context, F_i the diagonal of the Fisher
information (natural policy gradient, Kakade 2001). All entries are sums over turns, so vectors can be added over
trajectories and clients. The counters are part of the vector, so that no metric is sent separately.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import VectorError

Vector = NDArray[np.float32]
Floats = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)
BASE_COUNTERS = 5
WIRE_TYPES = (np.dtype(np.float16), np.dtype(np.float32))  # of vectors and adapters in messages
MOST_TOKENS = 2**20  # of the prompt of one turn: no language model reads longer ones
MOST_REWARD = 2.0  # size of a turn's reward: a change of the score, which ends at 1 at most, and one for a game lost
ROUNDING = 1e-3  # relative growth of a clipped norm that rounding to half precision may cause


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """The meaning of a vector's entries; device and server must agree on it.

    Parameters
    ----------
    codec
        Name of the codec.
    dimension
        Length of the context parameter w, and hence of g and F; 0 if contexts are text.
    vocabulary
        Hash of the definition of the coordinates.
    policy_version
        The policy version that played the trajectories.
    families
        Names of the game families, in the order of the counters.
    horizon
        Number of steps for which returns are counted.
    clipping_norm, fisher_norm
        Largest L2 norms of g and F that a device may send.
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
        """Shape (families, counters): five totals, then sums of returns and visit counts by step."""
        return len(self.families), BASE_COUNTERS + 2 * self.horizon

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        families, counters = self.counters_shape
        return 2 * self.dimension + families * counters

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length of each part that is clipped and summed separately."""
        return {"gradient": self.dimension, "fisher": self.dimension}

    @property
    def norms(self) -> Mapping[str, float]:
        """Clipping norm of each such part."""
        return {"gradient": self.clipping_norm, "fisher": self.fisher_norm}

    @property
    def digest(self) -> str:
        """Hash of this specification, 16 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)}, sort_keys=True)

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
            raise VectorError(f"vector specification {spec.codec!r} has no steps or families, or a negative dimension")
        return spec

    def _check_types(self) -> None:
        names = (self.codec, self.vocabulary, self.policy_version, *self.families)
        sizes, norms = (self.dimension, self.horizon), (self.clipping_norm, self.fisher_norm)
        if not (
            all(isinstance(name, str) for name in names)
            and all(type(size) is int for size in sizes)
            and all(type(norm) is float and 0 < norm < math.inf for norm in norms)
        ):
            raise TypeError("a field has the wrong type or is out of range")


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals by family and by step: `values` has shape ``VectorSpec.counters_shape``.

    Its columns are episodes, wins, turns, prompt tokens and scores, then returns by step, then visits by step.
    """

    values: Vector

    @property
    def episodes(self) -> Vector:
        return self.values[:, 0]

    @property
    def returns(self) -> Vector:
        """Sums of returns-to-go, shape (families, horizon)."""
        return self.values[:, BASE_COUNTERS : BASE_COUNTERS + self.horizon]

    @property
    def visits(self) -> Vector:
        """Number of episodes that reached each step, shape (families, horizon)."""
        return self.values[:, BASE_COUNTERS + self.horizon :]

    @property
    def horizon(self) -> int:
        return int(self.values.shape[1] - BASE_COUNTERS) // 2

    def check(self, games: int) -> None:
        """Refuse counters that nobody can have who has played so many games, with all families together.

        Raises
        ------
        VectorError
            If a counter is larger than that.
        """
        h, turns = self.horizon, games * self.horizon
        reward = turns * MOST_REWARD
        largest = np.array([games, games, turns, turns * MOST_TOKENS, reward, *[reward] * h, *[games] * h])
        if (np.abs(self.values.astype(np.float64)).sum(axis=0) > largest * (1 + ROUNDING)).any():
            raise VectorError(f"the counters of an experience vector are larger than {games} games can make them")

    def baseline(self) -> Vector:
        """Mean return-to-go by family and step, shape (families, horizon); zero at steps that no episode reached."""
        return np.divide(self.returns, self.visits, out=np.zeros_like(self.returns), where=self.visits > 0)


@dataclass(frozen=True, slots=True)
class ExperienceVector:
    """The experience of one client, or a sum over several.

    Parameters
    ----------
    spec
        Meaning and size of the entries.
    gradient, fisher
        Sums over turns of the policy gradient and of the Fisher diagonal, shape (dimension,).
    counters
        Totals by family and by step.

    Raises
    ------
    VectorError
        If a part has the wrong shape.
    """

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

    def parts(self) -> dict[str, Floats]:
        """Return the parts that are clipped and summed separately, by name."""
        return {"gradient": self.gradient.astype(np.float64), "fisher": self.fisher.astype(np.float64)}

    @classmethod
    def from_parts(cls, spec: VectorSpec, parts: Mapping[str, Floats]) -> ExperienceVector:
        """Build a sum from its parts; missing parts and the counters are zero."""
        gradient, fisher = (
            parts.get(name, np.zeros(spec.dimension)).astype(np.float32) for name in ("gradient", "fisher")
        )
        return cls(spec, gradient, fisher, Counters(np.zeros(spec.counters_shape, np.float32)))

    @classmethod
    def from_array(cls, spec: VectorSpec, array: NDArray[np.generic], bounded: bool = True) -> ExperienceVector:
        """Build a vector from a received array, after checking it.

        Parameters
        ----------
        spec
            The expected specification.
        array
            Shape ``(spec.size,)``, float16 or float32.
        bounded
            Whether to check the clipping norms, and the signs of the Fisher diagonal and the counters. Vectors with
            noise satisfy neither.

        Raises
        ------
        VectorError
            If shape or type are wrong, an entry is not finite, or a bound is violated.
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
        """Build a vector from a trusted array of shape ``(spec.size,)``, such as a sum, without checking norms."""
        d = spec.dimension
        return cls(spec, values[:d], values[d : 2 * d], Counters(values[2 * d :].reshape(spec.counters_shape)))

    def _check_bounds(self) -> None:
        for name, part, bound in (
            ("gradient", self.gradient, self.spec.clipping_norm),
            ("Fisher diagonal", self.fisher, self.spec.fisher_norm),
        ):
            norm = float(np.linalg.norm(part.astype(np.float64)))  # squares may overflow float32
            if norm > bound * (1 + ROUNDING):
                raise VectorError(f"{name} has norm {norm:.3g}, above the clipping norm {bound:.3g}")
        if (self.fisher < 0).any() or (self.counters.visits < 0).any() or (self.counters.values[:, :4] < 0).any():
            raise VectorError("a Fisher diagonal or a counter is negative")

    def clipped(self) -> ExperienceVector:
        """Return the vector with g and F scaled down to at most their clipping norms."""
        return ExperienceVector(
            self.spec,
            clip(self.gradient, self.spec.clipping_norm),
            clip(self.fisher, self.spec.fisher_norm),
            self.counters,
        )


@dataclass(frozen=True, slots=True)
class Contribution:
    """One accepted vector, the node that sent it, and its texts if the codec sends text."""

    node_id: int
    vector: ExperienceVector
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The result of a strategy: one vector on the scale of a sum over `cohort` clients.

    Parameters
    ----------
    vector
        The aggregate.
    cohort
        Number of clients.
    noise
        Variance of the noise that was added to each entry of the gradient.
    parts
        Aggregates of groups of the cohort that get contexts of their own; if empty, all clients share one.
    words
        The cohort's texts if the codec sends text.
    """

    vector: ExperienceVector
    cohort: int
    noise: float = 0.0
    parts: tuple[Aggregate, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all entries of the vector and of the parts are finite."""
        return bool(np.isfinite(self.vector.to_array()).all()) and all(part.finite for part in self.parts)


def clip(values: NDArray[Real], norm: float) -> NDArray[Real]:
    """Scale to an L2 norm of at most `norm`, in the data type of the values."""
    length = float(np.linalg.norm(values))
    return values if length <= norm else values * values.dtype.type(norm / length)


def total(vectors: Iterable[ExperienceVector]) -> ExperienceVector:
    """Sum vectors of one specification. The sum is correctly rounded, so that it does not depend on their order.

    Raises
    ------
    VectorError
        If there are none, or their specifications differ.
    """
    summands = list(vectors)
    if not summands:
        raise VectorError("there is no experience vector to add up: no client sent one that could be used")
    spec = summands[0].spec
    if any(vector.spec != spec for vector in summands):
        raise VectorError("experience vectors of different specifications cannot be added")
    stacked = np.stack([vector.to_array() for vector in summands])
    # Column by column: a list of Python's numbers takes eight times the memory of the array.
    flat = np.array([math.fsum(column.tolist()) for column in stacked.T]).astype(np.float32)
    return ExperienceVector.unchecked(spec, flat)
