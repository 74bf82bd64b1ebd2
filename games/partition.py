"""How games are divided among clients: each client's mixture of games, number of games, and fresh seeds per cycle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..protocol.amounts import games_of_client, positive_number
from ..protocol.errors import ConfigError
from ..protocol.play import GAMES_PER_CLIENT, GameSpec
from .splits import Split, for_split, game_seed

PARTITIONS = ("iid", "by-family", "dirichlet:ALPHA")


def client_games(
    specs: Sequence[GameSpec], client: int, num_clients: int, count: int, cycle: int, partition: str, seed: int
) -> tuple[tuple[GameSpec, int], ...]:
    """Return the private games of one client in one cycle, a pure function of its arguments.

    Parameters
    ----------
    specs
        The games of the run; each client draws from its own mixture of them.
    client, num_clients
        Index of the client, and number of clients.
    count
        Number of games per cycle. Every cycle has new ones.
    cycle
        Index of the cycle, from 0.
    partition
        ``"iid"``: all clients draw uniformly; ``"by-family"``: each client has one family, assigned in turn;
        ``"dirichlet:ALPHA"``: each client's mixture is drawn once from a symmetric Dirichlet distribution; a smaller
        ALPHA makes clients more heterogeneous.
    seed
        Seed of the mixtures and draws. It does not affect the instances of the games.

    Returns
    -------
    tuple of (GameSpec, int)
        Specifications with game seeds.

    Raises
    ------
    ConfigError
        If the partition is unknown, a number is out of range, or the client has no seeds left.
    """
    weights = mixture(specs, client, num_clients, partition, seed)
    if count < 0 or cycle < 0:
        raise ConfigError(f"count and cycle must not be negative, but are {count} and {cycle}")
    rng = np.random.default_rng([seed, 1, client, cycle])
    spec_indices = rng.choice(len(specs), size=count, p=weights)
    first = cycle * count
    return tuple(
        (for_split(specs[spec_index], Split.PRIVATE), game_seed(Split.PRIVATE, first + i, client))
        for i, spec_index in enumerate(spec_indices)
    )


def games_per_client(mean: int, num_clients: int, amounts: str, seed: int) -> list[int]:
    """Return the number of games per cycle of every client; see `games_of_client`."""
    return [games_of_client(mean, client, amounts, seed) for client in range(num_clients)]


def check_private_games(mean: int, num_clients: int, cycles: int, amounts: str, seed: int) -> None:
    """Raise `ConfigError` if there are no seeds for the games of every client and cycle, and the trials behind."""
    game_seed(Split.PRIVATE, 0, num_clients - 1)  # first, so that a huge fleet is not counted client by client
    most = max(games_per_client(mean, num_clients, amounts, seed))
    if (cycles + 1) * most > GAMES_PER_CLIENT:
        raise ConfigError(
            f"games.per-client {mean} in cycles {cycles} are up to {(cycles + 1) * most:,} games of a client, and "
            f"there are {GAMES_PER_CLIENT:,}: lower one of them"
        )


def mixtures(specs: Sequence[GameSpec], num_clients: int, partition: str, seed: int) -> NDArray[np.float64]:
    """Return the probability with which each client draws each specification.

    Returns
    -------
    array
        Shape ``(num_clients, len(specs))``; rows sum to 1.

    Raises
    ------
    ConfigError
        If there are no specifications or clients, or the partition is unknown.
    """
    return np.stack([mixture(specs, client, num_clients, partition, seed) for client in range(max(1, num_clients))])


def mixture(specs: Sequence[GameSpec], client: int, num_clients: int, partition: str, seed: int) -> NDArray[np.float64]:
    """Return one row of `mixtures`, shape ``(len(specs),)``, at a cost that does not grow with the clients."""
    if not specs or num_clients < 1:
        raise ConfigError(f"assigning games needs games and clients, not {len(specs)} and {num_clients}")
    if not 0 <= client < num_clients:
        raise ConfigError(f"client {client} of {num_clients}: it must be between 0 and {num_clients - 1}")
    if partition == "iid":
        return np.full(len(specs), 1 / len(specs))
    if partition == "by-family":
        families = list(dict.fromkeys(spec.family for spec in specs))
        family = families[client % len(families)]
        member = np.array([spec.family == family for spec in specs], dtype=np.float64)
        return np.asarray(member / member.sum())
    known = ", ".join(PARTITIONS)
    alpha = positive_number(
        partition, "dirichlet", f"unknown partition {partition!r}; known are {known} with ALPHA > 0"
    )
    return np.asarray(_dirichlet(len(specs), alpha, num_clients, seed)[client])


@lru_cache(maxsize=4)
def _dirichlet(specs: int, alpha: float, num_clients: int, seed: int) -> NDArray[np.float64]:
    """Draw the mixtures of all clients."""
    drawn = np.random.default_rng([seed, 0]).dirichlet(np.full(specs, alpha), size=num_clients)
    drawn.setflags(write=False)
    return drawn
