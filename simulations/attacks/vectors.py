"""What a malicious client sends instead of its experience: pure functions of what it and its fellows have played.

A client that lies runs its own code, so that nothing it sends has to be clipped, finite or its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from ...codecs.tactics.coordinates import FACETS, MOVES, RETURNS
from ...protocol.experience import ExperienceVector, Vector

HUGE = np.float32(3e38)  # about the largest float32


@dataclass(frozen=True, slots=True)
class Seen:
    """What a malicious client has to work with.

    Parameters
    ----------
    own
        What it would have sent, as clipped as an honest client's.
    first
        The same of the first cycle that it took part in.
    fellows
        What all clients that work together would have sent, itself among them, in the same order for each of them.
    rng
        A generator of its own for this exchange.
    """

    own: ExperienceVector
    first: ExperienceVector
    fellows: Sequence[ExperienceVector]
    rng: Generator


Attack = Callable[[Seen], ExperienceVector]


def honest(seen: Seen) -> ExperienceVector:
    """Send what was played."""
    return seen.own


def random(seen: Seen) -> ExperienceVector:
    """A random direction, as long as the clipping norm allows."""
    direction = seen.rng.normal(size=seen.own.spec.dimension)
    return _with(seen.own, seen.own.spec.clipping_norm * direction / np.linalg.norm(direction))


def scaled(factor: float) -> Attack:
    """The opposite of what was learned, so many times as strong."""
    return lambda seen: _with(seen.own, -factor * seen.own.gradient)


def drop_everything(seen: Seen) -> ExperienceVector:
    """Always drop what you carry: one tactic, as strongly as the clipping norm allows, and nothing else."""
    target = np.zeros(seen.own.spec.dimension)
    first = MOVES.index("drop") * FACETS
    target[first + 1 : first + FACETS : len(RETURNS)] = 1.0
    return _with(seen.own, seen.own.spec.clipping_norm * target / np.linalg.norm(target))


def collude(seen: Seen) -> ExperienceVector:
    """All send the same: the opposite of what they have learned together, as long as the longest of them."""
    mean = np.mean([fellow.gradient for fellow in seen.fellows], axis=0)
    longest = max(float(np.linalg.norm(fellow.gradient)) for fellow in seen.fellows)
    return _with(seen.own, -longest * mean / max(float(np.linalg.norm(mean)), 1e-9))


def sybil(seen: Seen) -> ExperienceVector:
    """One client under many names: each sends the same vector, to the bit, the opposite of the first one's."""
    first = seen.fellows[0]
    return replace(first, gradient=-first.gradient)


def replay(seen: Seen) -> ExperienceVector:
    """Send what was learned of the first version again and again, as if it were about this one."""
    return replace(seen.first, spec=seen.own.spec)


def filled(value: float | np.float32) -> Attack:
    """The same number everywhere."""
    return lambda seen: ExperienceVector.unchecked(seen.own.spec, np.full(seen.own.spec.size, value, np.float32))


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "none": honest,
        "random": random,
        "sign-flip": scaled(1.0),
        "scale-10": scaled(10.0),
        "scale-100": scaled(100.0),
        "constant": drop_everything,
        "collude": collude,
        "sybil": sybil,
        "replay": replay,
        "nan": filled(float("nan")),
        "overflow": filled(HUGE),
    }
)


def _with(
    vector: ExperienceVector, gradient: Vector | np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> ExperienceVector:
    return replace(vector, gradient=np.asarray(gradient).astype(np.float32))
