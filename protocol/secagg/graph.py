"""Choice of the number of neighbours and of the threshold of shares (Bell et al. 2020, section 4).

With too few neighbours, colluding ones may hold a threshold of shares, or dropouts may leave less than a threshold.
The numbers of colluding and of dropped-out neighbours are hypergeometric, so these probabilities are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from ..errors import SecureSumError

MAX_SECRECY_LOSS = 2.0**-40  # probability that colluding devices learn any device's secrets
MAX_FAILURE = 2.0**-20  # probability that a round fails although no more devices drop out than allowed


@dataclass(frozen=True, slots=True)
class Graph:
    """Number of neighbours of every device, and number of shares that recover a secret."""

    neighbours: int
    threshold: int


@lru_cache(maxsize=64)
def choose_graph(cohort: int, colluding: float, dropout: float) -> Graph:
    """Return the smallest number of neighbours that keeps both probabilities within their limits, and its threshold.

    Parameters
    ----------
    cohort
        Number of devices in the cohort.
    colluding
        Fraction of them that may collude with the server.
    dropout
        Fraction of them that may drop out, in any phase.

    Raises
    ------
    SecureSumError
        If even the complete graph does not suffice.
    """
    bad, gone = math.floor(colluding * cohort), math.floor(dropout * cohort)
    # Both probabilities fall with the number of neighbours: bisect.
    low, high = 1, (cohort - 1) // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _graph_with(cohort, 2 * middle, bad, gone) else (middle + 1, high)
    graph = _graph_with(cohort, 2 * low, bad, gone) if 2 * low < cohort - 1 else None
    if graph is not None:
        return graph
    # On the complete graph the counts are known. A device that remains may collude.
    threshold, left = max(2, bad + 1), cohort - gone - 1
    if cohort < 3 or threshold > left:
        raise SecureSumError(
            f"in a cohort of {cohort}, {bad} that collude and {gone} that drop out leave no threshold for a secure "
            "sum: ask more devices, or lower privacy.colluding or privacy.max-dropout"
        )
    return Graph(cohort - 1, threshold)


def _graph_with(cohort: int, neighbours: int, bad: int, gone: int) -> Graph | None:
    """Return the graph with the smallest threshold that colluding devices do not reach, or None if it is too high."""
    if neighbours >= cohort or cohort**2 * ((bad + gone) / cohort) ** neighbours > MAX_SECRECY_LOSS:
        return None  # the remaining honest devices might not be connected
    colluding_tail = _upper_tail(cohort - 1, bad, neighbours)
    threshold = next((t for t in range(2, neighbours + 1) if cohort * colluding_tail[t] <= MAX_SECRECY_LOSS), None)
    # Fewer neighbours than the threshold remain if too many of them drop out.
    dropout_tail = _upper_tail(cohort - 1, gone, neighbours)
    if threshold is None or cohort * dropout_tail[neighbours - threshold + 1] > MAX_FAILURE:
        return None
    return Graph(neighbours, threshold)


def _upper_tail(others: int, marked: int, drawn: int) -> list[float]:
    """Return the probabilities that at least 0, 1, ... `drawn` of the drawn are `marked` (hypergeometric)."""
    probabilities = [_hypergeometric(hits, others, marked, drawn) for hits in range(drawn + 1)]
    return list(accumulate(reversed(probabilities)))[::-1]


def _hypergeometric(hits: int, others: int, marked: int, drawn: int) -> float:
    if hits > marked or drawn - hits > others - marked:
        return 0.0
    return math.exp(_log_choose(marked, hits) + _log_choose(others - marked, drawn - hits) - _log_choose(others, drawn))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
