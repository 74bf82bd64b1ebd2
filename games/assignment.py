"""Which client plays what: fresh private games each cycle, from mixes of games that may differ between clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.play import GameSpec
from .splits import Split, for_split, game_seed

PARTITIONS = ("iid", "by-family", "dirichlet:ALPHA")
AMOUNTS = ("equal", "lognormal:SIGMA")
GOLDEN = (math.sqrt(5) - 1) / 2
TINY = 1e-9  # no quantile is infinite


def client_games(
    specs: Sequence[GameSpec], client: int, num_clients: int, count: int, cycle: int, partition: str, seed: int
) -> tuple[tuple[GameSpec, int], ...]:
    """Return the games of one client in one cycle, a pure function of its arguments.

    Parameters
    ----------
    specs
        The games that clients play; each client draws from its own mix of them.
    client, num_clients
        Who plays, out of how many.
    count
        Games per cycle. Every cycle has fresh ones.
    cycle
        Number of the cycle, from 0.
    partition
        ``"iid"``: everybody draws evenly; ``"by-family"``: each client has one family, in turn;
        ``"dirichlet:ALPHA"``: each client's mix is drawn once from a symmetric Dirichlet distribution, so that
        a small ALPHA makes clients differ.
    seed
        Picks the mixes and the draws, not the instances of the games.

    Raises
    ------
    ConfigError
        If the partition is unknown, a number is out of range, or the client's seeds are used up.
    """
    weights = mixes(specs, num_clients, partition, seed)
    if not 0 <= client < num_clients:
        raise ConfigError(f"client {client} of {num_clients}: it must be between 0 and {num_clients - 1}")
    if count < 0 or cycle < 0:
        raise ConfigError(f"count and cycle must not be negative, but are {count} and {cycle}")
    rng = np.random.default_rng([seed, 1, client, cycle])
    picks = rng.choice(len(specs), size=count, p=weights[client])
    first = cycle * count
    return tuple(
        (for_split(specs[pick], Split.PRIVATE), game_seed(Split.PRIVATE, first + i, client))
        for i, pick in enumerate(picks)
    )


def amounts(mean: int, num_clients: int, kind: str, seed: int) -> list[int]:
    """Return how many games each client plays in a cycle; as in `amount`."""
    return [amount(mean, client, kind, seed) for client in range(num_clients)]


def amount(mean: int, client: int, kind: str, seed: int) -> int:
    """Return how many games one client plays in a cycle, at least one; the same in every cycle.

    Parameters
    ----------
    mean
        Games of a client in a cycle, on average.
    kind
        ``"equal"``; ``"lognormal:SIGMA"``: the mean times a quantile of a log-normal distribution of mean 1, so that a
        large SIGMA gives few clients much and most of them little. Quantiles are spread evenly over the clients, by a
        golden-ratio sequence: draws would make a small fleet's total a matter of luck.

    Raises
    ------
    ConfigError
        If the kind is unknown.
    """
    if kind == "equal":
        return mean
    sigma = _positive(kind, "lognormal", f"unknown amounts {kind!r}; known are {', '.join(AMOUNTS)} with SIGMA > 0")
    first, normal = np.random.default_rng([seed, 2]).random(), NormalDist(-(sigma**2) / 2, sigma)
    place = (first + client * GOLDEN) % 1
    return max(1, round(mean * math.exp(normal.inv_cdf(min(max(place, TINY), 1 - TINY)))))


def mixes(specs: Sequence[GameSpec], num_clients: int, partition: str, seed: int) -> NDArray[np.float64]:
    """Return how often each client draws each specification, shape ``(num_clients, len(specs))``, rows sum to 1."""
    if not specs or num_clients < 1:
        raise ConfigError(f"assigning games needs games and clients, not {len(specs)} and {num_clients}")
    if partition == "iid":
        return np.full((num_clients, len(specs)), 1 / len(specs))
    if partition == "by-family":
        return _by_family(specs, num_clients)
    known = ", ".join(PARTITIONS)
    alpha = _positive(partition, "dirichlet", f"unknown partition {partition!r}; known are {known} with ALPHA > 0")
    return np.random.default_rng([seed, 0]).dirichlet(np.full(len(specs), alpha), size=num_clients)


def _by_family(specs: Sequence[GameSpec], num_clients: int) -> NDArray[np.float64]:
    families = list(dict.fromkeys(spec.family for spec in specs))
    mine = [families[client % len(families)] for client in range(num_clients)]
    member = np.array([[spec.family == family for spec in specs] for family in mine], dtype=np.float64)
    return np.asarray(member / member.sum(axis=1, keepdims=True))


def _positive(text: str, name: str, refusal: str) -> float:
    """Read ``name:NUMBER``."""
    given, _, number = text.partition(":")
    try:
        value = float(number) if given == name else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(refusal)
    return value
