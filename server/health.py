"""Fleet health: rates by class of device, from counts in the sums of trials, and in words.

A rate is a count over the number of answers, and both may hold noise. Its interval is the set of all rates p for which

    (count - p answers)^2 <= z^2 (answers p (1 - p) + s^2 (1 + p^2))

where s^2 is the variance of the noise: the score interval (Wilson 1927), with the noise of both numbers in the variance
(Fieller 1954). It is Wilson's interval without noise, and everything where the noise hides the number of answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from ..protocol.experience import Floats
from ..protocol.health import MACHINE, PACE, PEAK, Scale
from ..protocol.records.summary import ClassHealth, CycleRecord, FleetHealth
from .evaluation import Z95

HEAD = ("class of device", "answers", "died", "not the current version", "time per turn", "peak memory")
WHOLE = "all"
NARROW, SOME = 0.3, 0.2  # width of an interval around a rate that is said; bound below that is said of a wider one
TOO_NOISY = "too noisy to say"
COUNTS = "Counts that devices added to their answers to trials, by the memory of their machine, with 95 % intervals{}."


def fleet_health(counts: Floats, variance: float) -> FleetHealth:
    """Return the record of counts, shape `fedoel.protocol.health.SHAPE`, and of the variance of the noise in each."""
    digits = 2 if variance else 0  # without noise a secure sum is exact to a small part of a count
    rows = [[round(float(count), digits) for count in row] for row in counts]
    classes = {name: _class(row) for name, row in zip(MACHINE.names, rows, strict=True)}
    return FleetHealth(classes=classes, deviation=math.sqrt(variance))


def pooled(records: Sequence[FleetHealth]) -> FleetHealth:
    """Return the counts of several cycles as one; at least one."""
    counts = np.sum([[_row(one) for one in record.classes.values()] for record in records], axis=0)
    return fleet_health(counts, sum(record.deviation**2 for record in records))


def known_health(cycles: Sequence[CycleRecord]) -> list[tuple[str, FleetHealth]]:
    """Return what there is to show, each with what it is of: the last cycle in which devices said it, and all."""
    known = [(record.cycle, record.health) for record in cycles if record.health]
    if not known:
        return []
    first, (last, latest) = known[0][0], known[-1]
    every = [(f"cycles {first} to {last}", pooled([health for _, health in known]))] if known[1:] else []
    return [(f"cycle {last}", latest), *every]


def note(health: FleetHealth) -> str:
    """Say what the numbers are."""
    return COUNTS.format(", the noise of privacy included" if health.deviation else "")


def rows(health: FleetHealth) -> list[list[str]]:
    """Return the cells under `HEAD`: a row for each class that has answers or noise, and one for the whole fleet."""
    counts, variance = {name: _row(one) for name, one in health.classes.items()}, health.deviation**2
    by_class = [_words(name, row, variance) for name, row in counts.items() if variance or any(row)]
    return [*by_class, _words(WHOLE, [*map(sum, zip(*counts.values(), strict=True))], variance * len(counts))]


def interval(count: float, answers: float, variance: float, z: float = Z95) -> tuple[float, float]:
    """Return the interval of a rate.

    Parameters
    ----------
    variance
        Of the noise, in each of the two numbers.
    z
        Standard deviations on either side.
    """
    count, answers, z2 = max(count, 0.0), max(answers, 0.0), z**2
    square = answers**2 + z2 * answers - z2 * variance
    linear, constant = 2 * count * answers + z2 * answers, count**2 - z2 * variance
    if square <= 0:
        return 0.0, 1.0
    root = math.sqrt(max(linear**2 - 4 * square * constant, 0.0))
    low, high = (linear - root) / (2 * square), (linear + root) / (2 * square)
    return min(max(low, 0.0), 1.0), max(min(high, 1.0), 0.0)


def rate_words(count: float, answers: float, variance: float, z: float = Z95) -> str:
    """Say a rate with its interval, a bound, or that the noise hides it."""
    if not variance and not answers:
        return "-"
    low, high = interval(count, answers, variance, z)
    bounds = f"({100 * low:.0f}-{100 * high:.0f} %)"
    if not variance:
        return f"{count:.0f} of {answers:.0f} {bounds}"
    if high - low <= NARROW:
        return f"about {100 * min(max(count / answers, low), high):.0f} % {bounds}"
    return f"at least {100 * low:.0f} %" if low >= SOME else TOO_NOISY


def number_words(answers: float, variance: float) -> str:
    """Say how many answers there are."""
    if not variance:
        return f"{answers:.0f}"
    low, high = answers - Z95 * math.sqrt(variance), answers + Z95 * math.sqrt(variance)
    if low < 1:
        return f"at most {max(high, 0.0):.0f}"
    return f"about {answers:.0f} ({low:.0f}-{high:.0f})"


def _words(name: str, row: Sequence[float], variance: float) -> list[str]:
    answers, died, behind, *buckets = row
    said = [number_words(answers, variance), *(rate_words(count, answers, variance) for count in (died, behind))]
    pace, peak = buckets[: len(PACE.names)], buckets[len(PACE.names) :]
    return [name, *said, _largest(PACE, pace, answers, variance), _largest(PEAK, peak, answers, variance)]


def _largest(scale: Scale, counts: Sequence[float], answers: float, variance: float) -> str:
    """Say the fullest bucket; which one that is depends on the noise of all of them, so all bounds hold together."""
    fullest = int(np.argmax(counts))
    z = NormalDist().inv_cdf(1 - 0.025 / len(counts))
    said = rate_words(counts[fullest], answers, variance, z if variance else Z95)
    return said if said in ("-", TOO_NOISY) else f"{scale.names[fullest]}: {said}"


def _row(one: ClassHealth) -> list[float]:
    return [one.answers, one.died, one.behind, *one.pace, *one.peak]


def _class(row: Sequence[float]) -> ClassHealth:
    answers, died, behind, *buckets = row
    pace = tuple(buckets[: len(PACE.names)])
    return ClassHealth(answers=answers, died=died, behind=behind, pace=pace, peak=tuple(buckets[len(pace) :]))
