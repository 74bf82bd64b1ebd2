"""Shares: a device's secrets, split so that a threshold of its neighbours recovers them, each sealed for its holder.

A secret is a number below a prime of 128 bits. Splitting is the library's (Shamir 1979); putting together is written
out, because the coefficients depend only on who answers and are mostly the same for all devices of a round.
"""

from __future__ import annotations

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
    """Draw a secret, 16 bytes."""
    return secrets.randbelow(PRIME).to_bytes(SEED, "big")


def split(seed: bytes, count: int, threshold: int) -> list[bytes]:
    """Split a secret into shares of 16 bytes; share ``i`` is the polynomial's value at ``i + 1``."""
    made = shamirs.shares(int.from_bytes(seed, "big"), quantity=count, modulus=PRIME, threshold=threshold)
    return [share.value.to_bytes(SEED, "big") for share in made]


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Put a secret together from shares by their place, counted from 0.

    Raises
    ------
    SecureSumError
        If there are fewer than the threshold.
    """
    if len(shares) < threshold:
        raise SecureSumError(f"{len(shares)} shares of at least {threshold} are there")
    places = tuple(sorted(shares)[:threshold])
    values = (int.from_bytes(shares[place], "big") for place in places)
    secret = sum(weight * value for weight, value in zip(_weights(places), values, strict=True)) % PRIME
    return secret.to_bytes(SEED, "big")


@lru_cache(maxsize=512)
def _weights(places: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange coefficients at zero for points at ``place + 1``."""
    points = [place + 1 for place in places]
    weights = []
    for one in points:
        above = below = 1
        for other in points:
            if other != one:
                above, below = above * other % PRIME, below * (other - one) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)


def seal(key: bytes, shares: tuple[bytes, bytes], route: tuple[int, int], terms: Terms) -> bytes:
    """Seal a pair of shares with AES-256-GCM for the way from one position to another."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, b"".join(shares), _label(route, terms))


def unseal(key: bytes, sealed: bytes, route: tuple[int, int], terms: Terms) -> tuple[bytes, bytes]:
    """Open what `seal` made.

    Raises
    ------
    SecureSumError
        If it was made for another way or round, or changed.
    """
    try:
        opened = AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], _label(route, terms))
    except (InvalidTag, ValueError) as error:
        raise SecureSumError("sealed shares cannot be opened") from error
    return opened[:SEED], opened[SEED:]


def _label(route: tuple[int, int], terms: Terms) -> bytes:
    return terms.digest + b"".join(position.to_bytes(2, "big") for position in route)
