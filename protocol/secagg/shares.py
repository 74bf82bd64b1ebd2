"""Shamir secret sharing (1979) of a device's seeds among its neighbours; every share is encrypted for its holder.

A seed is an integer below a 128-bit prime. The library `shamirs` splits it. Recovery is implemented here, with cached
Lagrange coefficients, because most devices of a round are recovered from shares with the same indices.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from functools import lru_cache

import shamirs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import SecureSumError
from .terms import Terms

PRIME = 2**128 - 159
SEED = 16
NONCE = 12
SEALED = NONCE + 2 * SEED + 16


def new_seed() -> bytes:
    """Draw a seed, 16 bytes."""
    return secrets.randbelow(PRIME).to_bytes(SEED, "big")


def split(seed: bytes, count: int, threshold: int) -> list[bytes]:
    """Split a seed into `count` shares of 16 bytes; the share of index ``i`` is the polynomial's value at ``i + 1``."""
    shares = shamirs.shares(int.from_bytes(seed, "big"), quantity=count, modulus=PRIME, threshold=threshold)
    return [share.value.to_bytes(SEED, "big") for share in shares]


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Recover a seed from shares by their indices, counted from 0.

    Raises
    ------
    SecureSumError
        If there are fewer shares than the threshold.
    """
    if len(shares) < threshold:
        raise SecureSumError(f"{len(shares)} shares of at least {threshold} are there")
    indices = tuple(sorted(shares)[:threshold])
    values = (int.from_bytes(shares[index], "big") for index in indices)
    secret = sum(weight * value for weight, value in zip(_lagrange_weights(indices), values, strict=True)) % PRIME
    return secret.to_bytes(SEED, "big")


@lru_cache(maxsize=512)
def _lagrange_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    """Return the Lagrange coefficients at zero for the points x = ``index + 1``.

    That of x is the product of y / (y - x) over the other points y. Most numbers up to the last point n are points, so
    that the differences are computed from those of all these numbers, which make (-1)^(x-1) (x-1)! (n-x)!, and from the
    few that are missing: it takes time in t (n - t) and not in t^2.
    """
    points = [index + 1 for index in indices]
    last, product = max(points), math.prod(points) % PRIME
    missing, inverse = sorted(set(range(1, last + 1)) - set(points)), _inverse_factorials(last)
    weights = []
    for x in points:
        others = math.prod([y - x for y in missing]) * (1 if x % 2 else -1)
        weights.append(product * inverse[x] % PRIME * inverse[last - x] % PRIME * others % PRIME)
    return tuple(weights)


@lru_cache(maxsize=64)
def _inverse_factorials(last: int) -> tuple[int, ...]:
    """Return the inverses of the factorials of 0 to `last` modulo `PRIME`."""
    inverse = [pow(math.factorial(last), -1, PRIME)]
    for number in range(last, 0, -1):
        inverse.append(inverse[-1] * number % PRIME)
    return tuple(reversed(inverse))


def seal(key: bytes, shares: tuple[bytes, bytes], route: tuple[int, int], terms: Terms) -> bytes:
    """Encrypt a pair of shares with AES-256-GCM, bound to the round and to its route: (sender, receiver) positions."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, b"".join(shares), _label(route, terms))


def unseal(key: bytes, sealed: bytes, route: tuple[int, int], terms: Terms) -> tuple[bytes, bytes]:
    """Decrypt what `seal` returned.

    Raises
    ------
    SecureSumError
        If it was sealed for another route or round, or was changed.
    """
    try:
        opened = AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], _label(route, terms))
    except (InvalidTag, ValueError) as error:
        raise SecureSumError("sealed shares cannot be opened") from error
    return opened[:SEED], opened[SEED:]


def _label(route: tuple[int, int], terms: Terms) -> bytes:
    return terms.digest + b"".join(position.to_bytes(2, "big") for position in route)
