"""How many neighbours a device needs, and how many of them recover its secrets (Bell et al. 2020, section 4).

Too few neighbours, and those who collude hold a threshold of shares, or those who drop out leave fewer. Both counts of
a device's random neighbours are hypergeometric, so the chances are computed, not simulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from ..errors import SecureSumError

SECRECY = 2.0**-40  # largest chance that any device's secrets fall to those who collude
FAILURE = 2.0**-20  # largest chance that a round fails although no more drop out than allowed


@dataclass(frozen=True, slots=True)
class Graph:
    """Neighbours of every device, and shares that recover a secret."""

    neighbours: int
    threshold: int


@lru_cache(maxsize=64)
def choose_graph(cohort: int, colluding: float, dropout: float) -> Graph:
    """Find a small number of neighbours that keeps both promises.

    Parameters
    ----------
    cohort
        Devices that are asked.
    colluding
        Share of them that may work together with the server.
    dropout
        Share of them that may drop out, at any phase.

    Raises
    ------
    SecureSumError
        If not even pairing everybody with everybody suffices.
    """
    bad, gone = math.floor(colluding * cohort), math.floor(dropout * cohort)
    # More neighbours are safer in both ways, so the smallest number is found by halving.
    low, high = 1, (cohort - 1) // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fitting(cohort, 2 * middle, bad, gone) else (middle + 1, high)
    graph = _fitting(cohort, 2 * low, bad, gone) if 2 * low < cohort - 1 else None
    if graph is not None:
        return graph
    # Everybody with everybody: counts are certain. A device that stays may be among those that collude.
    threshold, left = max(2, bad + 1), cohort - gone - 1
    if cohort < 3 or threshold > left:
        raise SecureSumError(
            f"in a cohort of {cohort}, {bad} that collude and {gone} that drop out leave no threshold for a secure "
            "sum: ask more devices, or lower privacy.colluding or privacy.max-dropout"
        )
    return Graph(cohort - 1, threshold)


def _fitting(cohort: int, neighbours: int, bad: int, gone: int) -> Graph | None:
    """The threshold that those who collude do not reach, if those who stay do."""
    if neighbours >= cohort or cohort**2 * ((bad + gone) / cohort) ** neighbours > SECRECY:
        return None  # a stretch of the ring could be cut off
    caught = _at_least(cohort - 1, bad, neighbours)
    threshold = next((t for t in range(2, neighbours + 1) if cohort * caught[t] <= SECRECY), None)
    # Few enough of those who are left are among the neighbours when too many are among the others.
    missed = _at_least(cohort - 1, gone, neighbours)
    if threshold is None or cohort * missed[neighbours - threshold + 1] > FAILURE:
        return None
    return Graph(neighbours, threshold)


def _at_least(others: int, marked: int, drawn: int) -> list[float]:
    """Chances that at least 0, 1, ... `drawn` of the drawn others are among the `marked`."""
    chances = [_exactly(hits, others, marked, drawn) for hits in range(drawn + 1)]
    return list(accumulate(reversed(chances)))[::-1]


def _exactly(hits: int, others: int, marked: int, drawn: int) -> float:
    if hits > marked or drawn - hits > others - marked:
        return 0.0
    return math.exp(_log_choose(marked, hits) + _log_choose(others - marked, drawn - hits) - _log_choose(others, drawn))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
