"""How many games a client plays in a cycle: devices play them, and the server bounds by them what a reply may count."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from .errors import ConfigError

AMOUNTS = ("equal", "lognormal:SIGMA")
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
MIN_PROBABILITY = 1e-9  # keeps quantiles finite


def games_of_client(mean: int, client: int, amounts: str, seed: int) -> int:
    """Return the number of games that one client plays per cycle, at least one; the same in every cycle.

    Parameters
    ----------
    mean
        Mean number of games per client and cycle.
    client
        Index of the client.
    amounts
        ``"equal"``: the mean; ``"lognormal:SIGMA"``: the mean times a quantile of the log-normal distribution with
        mean 1, so that with a large SIGMA few clients have many games and most have few. The probabilities of the
        quantiles are spread evenly by a golden-ratio (low-discrepancy) sequence: independent draws would make the
        total of a small fleet vary with the seed.
    seed
        Offset of the sequence.

    Raises
    ------
    ConfigError
        If `amounts` is unknown.
    """
    if amounts == "equal":
        return mean
    offset = np.random.default_rng([seed, 2]).random()
    return _quantile(mean, amounts, float((offset + client * GOLDEN_RATIO) % 1))


def most_games(mean: int, amounts: str) -> int:
    """Return the largest number of games that any client plays per cycle; raises as `games_of_client` does."""
    return mean if amounts == "equal" else _quantile(mean, amounts, 1.0)


def positive_number(text: str, name: str, refusal: str) -> float:
    """Return the positive NUMBER of ``name:NUMBER``; raise `ConfigError` with the message `refusal` otherwise."""
    prefix, _, number = text.partition(":")
    try:
        value = float(number) if prefix == name else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(refusal)
    return value


def _quantile(mean: int, amounts: str, probability: float) -> int:
    known = ", ".join(AMOUNTS)
    sigma = positive_number(amounts, "lognormal", f"unknown amounts {amounts!r}; known are {known} with SIGMA > 0")
    normal = NormalDist(-(sigma**2) / 2, sigma)
    return max(1, round(mean * math.exp(normal.inv_cdf(min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)))))
