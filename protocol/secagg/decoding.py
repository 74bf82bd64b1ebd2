"""Recovery of a shared secret although some of its shares are wrong.

Shamir's shares are a Reed-Solomon code (McEliece and Sarwate 1981): of n shares with threshold t, up to (n - t) / 2
wrong ones can be corrected by Gao's algorithm (2003), in time quadratic in n. The owner of a secret has published a
value that tells whether a recovered secret is the right one. Where there are few ways to choose t of n shares, all are
tried, which corrects up to n - t wrong ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from .shares import PRIME, SEED, recover

CHOICES = 2_000  # most choices of shares that are tried one by one

Polynomial = list[int]
"""Coefficients modulo `PRIME`, lowest first, without zeros at the end; empty for zero."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A secret, 16 bytes, and the indices of the shares that are not of it."""

    seed: bytes
    wrong: frozenset[int]


def recover_despite_errors(
    shares: Mapping[int, bytes], threshold: int, is_right: Callable[[bytes], bool]
) -> Recovered | None:
    """Recover a seed from shares of which some are wrong.

    Parameters
    ----------
    shares
        Shares of 16 bytes by their indices, counted from 0.
    threshold
        Number of right shares that determine the seed.
    is_right
        Whether a seed is the one that its owner has committed to.

    Returns
    -------
    Recovered or None
        None if too many shares are wrong, or the shares are of a seed that its owner has not committed to.
    """
    points = {index + 1: int.from_bytes(share, "big") % PRIME for index, share in shares.items()}
    if len(points) < threshold:
        return None
    if math.comb(len(points), threshold) <= CHOICES:
        candidates = (dict(choice) for choice in combinations(sorted(points.items()), threshold))
        chosen = next((c for c in candidates if is_right(_value_at_zero(c, threshold))), None)
        polynomial = None if chosen is None else _interpolated(chosen)
    else:
        polynomial = _decoded(points, threshold)
    if polynomial is None:
        return None
    seed = (polynomial[0] if polynomial else 0).to_bytes(SEED, "big")
    if not is_right(seed):
        return None
    return Recovered(seed, frozenset(x - 1 for x, y in points.items() if _value(polynomial, x) != y))


def wrong_shares(shares: Mapping[int, bytes], right: Iterable[int]) -> frozenset[int]:
    """Return the indices of the shares that are not of the secret that those at the indices `right` determine."""
    points = {index + 1: int.from_bytes(share, "big") % PRIME for index, share in shares.items()}
    known = {index + 1: points[index + 1] for index in right}
    differences = _divided_differences(known)
    wrong = set()
    for x in points.keys() - known.keys():
        value = 0
        for node, difference in zip(reversed(list(known)), reversed(differences), strict=True):
            value = (value * (x - node) + difference) % PRIME
        if value != points[x]:
            wrong.add(x - 1)
    return frozenset(wrong)


def _value_at_zero(points: Mapping[int, int], threshold: int) -> bytes:
    return recover({x - 1: y.to_bytes(SEED, "big") for x, y in points.items()}, threshold)


def _decoded(points: Mapping[int, int], threshold: int) -> Polynomial | None:
    """Return the polynomial of a degree below `threshold` that at least ``(n + threshold) / 2`` points are on.

    Gao 2003, algorithm 1: the extended Euclidean algorithm for the polynomial that vanishes at all points and the one
    that interpolates them, stopped half-way, gives the product of the wanted polynomial and the error locator.
    """
    before, after = _vanishing(points), _interpolated(points)
    locator_before, locator = Polynomial(), [1]
    while 2 * (len(after) - 1) >= len(points) + threshold:
        quotient, rest = _divided(before, after)
        before, after = after, rest
        locator_before, locator = locator, _minus(locator_before, _times(quotient, locator))
    polynomial, rest = _divided(after, locator)
    return polynomial if not rest and len(polynomial) <= threshold else None


def _vanishing(points: Mapping[int, int]) -> Polynomial:
    result = [1]
    for x in points:
        result = _times(result, [-x % PRIME, 1])
    return result


def _interpolated(points: Mapping[int, int]) -> Polynomial:
    """Return the polynomial of the least degree through all points."""
    result = Polynomial()
    for x, difference in zip(reversed(list(points)), reversed(_divided_differences(points)), strict=True):
        result = _minus(_times(result, [-x % PRIME, 1]), [-difference % PRIME])
    return result


def _divided_differences(points: Mapping[int, int]) -> list[int]:
    """Return Newton's divided differences, the coefficients of the interpolating polynomial in Newton's form."""
    xs, differences = list(points), list(points.values())
    for order in range(1, len(xs)):
        for index in range(len(xs) - 1, order - 1, -1):
            inverse = _inverse(xs[index] - xs[index - order])
            differences[index] = (differences[index] - differences[index - 1]) * inverse % PRIME
    return differences


@lru_cache(maxsize=8192)
def _inverse(number: int) -> int:
    return pow(number, -1, PRIME)


def _value(polynomial: Polynomial, x: int) -> int:
    result = 0
    for coefficient in reversed(polynomial):
        result = (result * x + coefficient) % PRIME
    return result


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    if not left or not right:
        return []
    result = [0] * (len(left) + len(right) - 1)
    for shift, coefficient in enumerate(right):
        for index, value in enumerate(left, shift):
            result[index] += coefficient * value
    return _trimmed([value % PRIME for value in result])


def _minus(left: Polynomial, right: Polynomial) -> Polynomial:
    size = max(len(left), len(right))
    padded = ((*polynomial, *[0] * (size - len(polynomial))) for polynomial in (left, right))
    return _trimmed([(a - b) % PRIME for a, b in zip(*padded, strict=True)])


def _divided(dividend: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return quotient and remainder."""
    rest, lead = list(dividend), _inverse(divisor[-1])
    quotient = [0] * max(0, len(dividend) - len(divisor) + 1)
    for shift in reversed(range(len(quotient))):
        factor = rest[shift + len(divisor) - 1] * lead % PRIME
        quotient[shift] = factor
        for index, coefficient in enumerate(divisor, shift):
            rest[index] = (rest[index] - factor * coefficient) % PRIME
    return _trimmed(quotient), _trimmed(rest)


def _trimmed(polynomial: Polynomial) -> Polynomial:
    while polynomial and not polynomial[-1]:
        polynomial.pop()
    return polynomial
