"""Choice of the number of neighbours and of the threshold of shares (Bell et al. 2020, section 4).

A device's masks are recovered from shares that its neighbours hold. Each neighbour holds a share of the own mask and
one of the pair masks, and an honest one sends one of the two. Both masks together reveal the device's vector. A server
that tells some of the k neighbours that the device has survived, and the others that it has dropped out, gets one share
of each honest neighbour, and both of each that colludes: with c of these, it can recover both masks if
``2 t <= k + c``. The threshold t is the smallest one that forbids this (`least_threshold`). The server chooses graphs
by it, and every device checks the graph of a round by it, with the share of colluding devices that its owner assumes.

The numbers of colluding and of dropped-out neighbours are hypergeometric, so these probabilities are exact.

Devices that drop out before their keys are shown cannot be picked, and a server that cheats can hide the keys of honest
ones. Those that collude are then a larger share of the others. So a device picks fewer where fewer are shown, and the
threshold of the round is high enough again (`count_picks`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from ..errors import SecureSumError

MAX_SECRECY_LOSS = 2.0**-40  # probability that colluding devices learn any device's secrets
MAX_FAILURE = 2.0**-20  # probability that a round fails although no more devices drop out than allowed
ROUNDING = 4  # pairs of neighbours by which the rounding of the threshold can move the smallest graph
COLLUDING = 1 / 3  # fraction of a cohort that a device takes for colluding, unless its owner says otherwise


@dataclass(frozen=True, slots=True)
class Graph:
    """Number of neighbours of every device, and number of shares that recover a secret."""

    neighbours: int
    threshold: int


@lru_cache(maxsize=64)
def choose_graph(cohort: int, colluding: float, dropout: float) -> Graph:
    """Return the graph with the smallest number of neighbours that is safe and withstands dropouts.

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
    gone = math.floor(dropout * cohort)
    # Both probabilities fall with the number of neighbours, but for the rounding of the threshold: bisect, and look at
    # the next smaller ones.
    low, high = 1, (cohort - 1) // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _sparse_graph(cohort, 2 * middle, colluding, gone) else (middle + 1, high)
    halves = range(max(1, low - ROUNDING), low + 1) if 2 * low < cohort - 1 else ()
    graph = next((sparse for half in halves if (sparse := _sparse_graph(cohort, 2 * half, colluding, gone))), None)
    graph = graph or complete_graph(cohort, colluding, dropout)
    if graph is None:
        raise SecureSumError(
            f"in a cohort of {cohort}, {math.floor(colluding * cohort)} that collude and {gone} that drop out leave no "
            "threshold for a secure sum, which must be above half of the others plus those that collude: ask more "
            "devices, or lower privacy.max-dropout or privacy.colluding"
        )
    return graph


def complete_graph(cohort: int, colluding: float, dropout: float) -> Graph | None:
    """Return the graph in which all are neighbours; None if a cohort is too small for it, and hence for any graph."""
    if cohort < 3:
        return None
    # The numbers of those that collude and of those that remain are known here.
    graph = Graph(cohort - 1, least_threshold(cohort, cohort - 1, colluding))
    return graph if graph.threshold <= cohort - 1 - math.floor(dropout * cohort) else None


def check_graph(graph: Graph, cohort: int, minimum: int, colluding: float) -> None:
    """Check that no device's secrets can be recovered by the server and those that collude with it.

    Parameters
    ----------
    graph
        Neighbours and threshold of the round.
    cohort, minimum
        Number of devices in the cohort, and smallest number of survivors that is unmasked.
    colluding
        Fraction of the cohort that may collude with the server.

    Raises
    ------
    SecureSumError
        If the threshold is lower than `least_threshold`, if fewer than two honest devices may be in the sum, or fewer
        than `least_minimum` devices.
    """
    bad, least = math.floor(colluding * cohort), least_threshold(cohort, graph.neighbours, colluding)
    if graph.threshold < least:
        raise SecureSumError(
            f"a threshold of {graph.threshold} of {graph.neighbours} neighbours is too low: with {bad} colluding "
            f"devices of {cohort}, two sets of survivors could be unmasked; it must be at least {least}"
        )
    fewest = least_minimum(graph, cohort, colluding)
    if minimum < fewest:
        raise SecureSumError(
            f"the sum may be over {minimum} devices, and as many as {bad} of {cohort} may collude: it must be over at "
            f"least {fewest}"
        )


def least_minimum(graph: Graph, cohort: int, colluding: float) -> int:
    """Return the smallest minimum of a round with which more than half of the honest devices are in its sum.

    A threshold of others, and a device itself, confirm every sum that it helps to open. In a complete graph that is
    enough, and the minimum only has to be two above those that collude. In others, it has to be as many as in a
    complete one.
    """
    needed = least_threshold(cohort, cohort - 1, colluding) + 1
    return needed if graph.threshold + 1 < needed else math.floor(colluding * cohort) + 2


def least_threshold(cohort: int, neighbours: int, colluding: float) -> int:
    """Return the smallest t with ``2 t > k + c``: k neighbours, of which at most c collude.

    Every device picks its neighbours at random: c is exceeded at any with a probability of at most `MAX_SECRECY_LOSS`.
    """
    return _least_threshold(cohort, cohort - 1, math.floor(colluding * cohort), neighbours)


@lru_cache(maxsize=64)
def count_picks(graph: Graph, cohort: int, others: int) -> int:
    """Return how many neighbours each device of a cohort picks among those whose keys it is shown.

    As many as the graph says, if all have sent keys. Otherwise the most for which the threshold is the least one or
    higher (`least_threshold`), although as many may collude as the graph withstands, all of them among those shown.
    In a complete graph that is all of them.

    Parameters
    ----------
    graph
        Neighbours and threshold of the round.
    cohort
        Number of devices in the cohort.
    others
        Number of other devices that are shown.

    Raises
    ------
    SecureSumError
        If too few are shown: even a threshold of neighbours could all collude.
    """
    if others >= cohort - 1:
        return graph.neighbours
    bad = bisect_right(
        range(cohort), graph.threshold, key=lambda bad: _least_threshold(cohort, cohort - 1, bad, graph.neighbours)
    )
    most = min(graph.neighbours, others)
    counts = range(graph.threshold, most + 1)
    safe = bisect_right(counts, graph.threshold, key=lambda count: _least_threshold(cohort, others, bad - 1, count))
    if not (bad and safe):
        raise SecureSumError(
            f"{others} other devices of a cohort of {cohort} have sent keys, too few for a threshold of "
            f"{graph.threshold}: those that collude may be too many of them"
        )
    return counts[safe - 1]


@lru_cache(maxsize=1024)
def _least_threshold(cohort: int, others: int, bad: int, neighbours: int) -> int:
    """Return the least threshold where `bad` of the others collude, or all of them if they are fewer."""
    tail = [*_upper_tail(others, min(bad, others), neighbours), 0.0]
    colluding_neighbours = next(c for c in range(neighbours + 1) if cohort * tail[c + 1] <= MAX_SECRECY_LOSS)
    return max(2, (neighbours + colluding_neighbours) // 2 + 1)


def _sparse_graph(cohort: int, neighbours: int, colluding: float, gone: int) -> Graph | None:
    """Return the graph with the least threshold, or None if it is not connected or dropouts leave less than that."""
    bad = math.floor(colluding * cohort)
    if neighbours >= cohort or cohort**2 * ((bad + gone) / cohort) ** neighbours > MAX_SECRECY_LOSS:
        return None  # the remaining honest devices might not be connected
    threshold = least_threshold(cohort, neighbours, colluding)
    # Fewer neighbours than the threshold remain if too many of them drop out.
    dropout_tail = _upper_tail(cohort - 1, gone, neighbours)
    if threshold > neighbours or cohort * dropout_tail[neighbours - threshold + 1] > MAX_FAILURE:
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
