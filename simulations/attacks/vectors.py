"""Attack vectors: what a malicious client sends, as pure functions of the vectors of all colluding clients.

A malicious client runs its own code. What it sends need not be clipped, finite, or derived from its own play.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from ...codecs.tactics.coordinates import FACETS, MOVES, RETURNS
from ...protocol.experience import ExperienceVector, Vector

HUGE = np.float32(3e38)  # near the largest float32


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a malicious client knows when it makes its vector.

    Parameters
    ----------
    honest
        The vector that an honest client would send in its place, clipped.
    first
        The same for the first exchange in which it took part.
    colluders
        The honest vectors of all colluding clients, itself included, in the same order for each of them.
    rng
        A random generator for this client and exchange.
    """

    honest: ExperienceVector
    first: ExperienceVector
    colluders: Sequence[ExperienceVector]
    rng: Generator


Attack = Callable[[Knowledge], ExperienceVector]


def honest(known: Knowledge) -> ExperienceVector:
    """No attack: send the honest vector."""
    return known.honest


def random(known: Knowledge) -> ExperienceVector:
    """A gradient in a random direction with the largest norm allowed."""
    direction = known.rng.normal(size=known.honest.spec.dimension)
    return _with(known.honest, known.honest.spec.clipping_norm * direction / np.linalg.norm(direction))


def scaled(factor: float) -> Attack:
    """The honest gradient times ``-factor``."""
    return lambda known: _with(known.honest, -factor * known.honest.gradient)


def drop_everything(known: Knowledge) -> ExperienceVector:
    """A targeted attack: a gradient with the largest norm allowed towards the tactic of dropping what is carried."""
    target = np.zeros(known.honest.spec.dimension)
    first = MOVES.index("drop") * FACETS
    target[first + 1 : first + FACETS : len(RETURNS)] = 1.0
    return _with(known.honest, known.honest.spec.clipping_norm * target / np.linalg.norm(target))


def collude(known: Knowledge) -> ExperienceVector:
    """The colluders' negated mean gradient, scaled to the largest norm among them; all send the same."""
    mean = np.mean([vector.gradient for vector in known.colluders], axis=0)
    longest = max(float(np.linalg.norm(vector.gradient)) for vector in known.colluders)
    return _with(known.honest, -longest * mean / max(float(np.linalg.norm(mean)), 1e-9))


def sybil(known: Knowledge) -> ExperienceVector:
    """A Sybil attack: all send the first colluder's vector with its gradient negated, identical to the bit."""
    first = known.colluders[0]
    return replace(first, gradient=-first.gradient)


def replay(known: Knowledge) -> ExperienceVector:
    """A replay attack: the vector of the first exchange, labelled with the current version."""
    return replace(known.first, spec=known.honest.spec)


def filled(value: float | np.float32) -> Attack:
    """A vector in which every number is `value`."""
    return lambda known: ExperienceVector.unchecked(
        known.honest.spec, np.full(known.honest.spec.size, value, np.float32)
    )


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
