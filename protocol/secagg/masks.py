"""Masks: pseudorandom vectors that hide a vector. Pair masks cancel in the sum; own masks are removed by the server.

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)    modulo 2^bits

as in Bonawitz et al. 2017, where PRG is the ChaCha20 key stream (RFC 8439) of a 32-byte key that is used once.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from .keys import AgreementKey, derive
from .terms import Terms

Cells = NDArray[np.uint16] | NDArray[np.uint32]
NONCE = bytes(16)  # counter and nonce: every key is used once


def cell_type(bits: int) -> np.dtype[np.unsignedinteger]:
    """Return the unsigned little-endian type of a cell; its arithmetic is modulo ``2**bits``."""
    return np.dtype("<u2" if bits == 16 else "<u4")


def expand(key: bytes, terms: Terms) -> Cells:
    """Return the mask of a 32-byte key, shape ``(cells,)``."""
    stream = Cipher(algorithms.ChaCha20(key, NONCE), mode=None).encryptor().update(bytes(terms.cells * terms.bits // 8))
    return np.frombuffer(stream, dtype=cell_type(terms.bits))


def own_mask(seed: bytes, terms: Terms) -> Cells:
    """Return a device's own mask, from a seed that no other device knows, shape ``(cells,)``."""
    return expand(derive(seed, b"own mask", terms), terms)


def mask_key(seed: bytes, terms: Terms) -> AgreementKey:
    """Derive the X25519 key of a device's pair masks; its 16-byte seed is what neighbours share."""
    return AgreementKey(derive(seed, b"pair mask key", terms))


def pair_key(own: AgreementKey, public: bytes, terms: Terms) -> bytes:
    """Return the key of two devices' pair mask from the private key of one and the public key of the other."""
    return own.agree(public, "pair mask", terms)


def add_pair_mask(total: Cells, key: bytes, position: int, other: int, terms: Terms) -> None:
    """Add a pair's mask in place, with the sign that the device at `position` uses."""
    mask = expand(key, terms)
    if position < other:
        total += mask
    else:
        total -= mask
