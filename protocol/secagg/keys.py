"""Keys of devices: a lasting Ed25519 identity, and X25519 keys for one round, signed by it.

Every derived key is bound to the terms of its round, so that nothing made for one round means anything in another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import SecureSumError
from .terms import Terms

KEY = 32
SIGNATURE = 64
ADVERTISED, CONFIRMED = "advertised keys", "survivors"  # what is signed


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device signs with, for as long as it belongs to a fleet."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """32 bytes by which others know this device."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, purpose: str, terms: Terms, body: bytes) -> bytes:
        """Sign something that is meant for one purpose in one round."""
        return self.private.sign(_signed(purpose, terms, body))


def check_signature(public: bytes, signature: bytes, purpose: str, terms: Terms, body: bytes) -> None:
    """Refuse what an identity has not signed for this purpose and round.

    Raises
    ------
    SecureSumError
        If the signature does not hold.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(purpose, terms, body))
    except (InvalidSignature, ValueError) as error:
        raise SecureSumError(f"a signature of {purpose} does not hold") from error


def _signed(purpose: str, terms: Terms, body: bytes) -> bytes:
    return b"fedoel secure sum 1 " + purpose.encode() + b"\0" + terms.digest + body


@dataclass(frozen=True, slots=True)
class Advert:
    """What a device tells its neighbours: public keys for pair masks and for sealing, signed by its identity.

    `commitment` is a digest of its own mask's seed, so that a seed that was put together wrongly is found out.
    """

    position: int
    identity: bytes
    mask_key: bytes
    seal_key: bytes
    commitment: bytes
    signature: bytes

    SIZE = 2 + 4 * KEY + SIGNATURE

    def to_bytes(self) -> bytes:
        """Write `SIZE` bytes."""
        return self.position.to_bytes(2, "big") + self.identity + self._body() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Advert:
        """Read what `to_bytes` wrote; nothing is checked but the size."""
        if len(data) != cls.SIZE:
            raise SecureSumError(f"advertised keys take {cls.SIZE} bytes, not {len(data)}")
        parts = [data[2 + KEY * n : 2 + KEY * (n + 1)] for n in range(4)]
        return cls(int.from_bytes(data[:2], "big"), parts[0], parts[1], parts[2], parts[3], data[2 + 4 * KEY :])

    @classmethod
    def signed(
        cls, identity: Identity, terms: Terms, position: int, mask_key: bytes, seal_key: bytes, commitment: bytes
    ) -> Advert:
        """Sign keys for a position in a round."""
        body = position.to_bytes(2, "big") + mask_key + seal_key + commitment
        return cls(position, identity.public, mask_key, seal_key, commitment, identity.sign(ADVERTISED, terms, body))

    def check(self, terms: Terms, members: Iterable[bytes]) -> None:
        """Refuse keys that no member of the fleet has signed for this place in this round.

        Raises
        ------
        SecureSumError
            If the identity is unknown or the signature does not hold.
        """
        if self.identity not in members:
            raise SecureSumError("advertised keys belong to no member of this fleet")
        body = self.position.to_bytes(2, "big") + self._body()
        check_signature(self.identity, self.signature, ADVERTISED, terms, body)

    def _body(self) -> bytes:
        return self.mask_key + self.seal_key + self.commitment


def many(data: bytes) -> list[Advert]:
    """Read adverts that stand one after the other."""
    return [Advert.from_bytes(data[start : start + Advert.SIZE]) for start in range(0, len(data), Advert.SIZE)]


def public_of(private: bytes) -> bytes:
    """Public half of an X25519 key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, purpose: str, terms: Terms) -> bytes:
    """Derive the key that two devices share for a purpose: X25519, then HKDF-SHA256 (RFC 7748, RFC 5869).

    Raises
    ------
    SecureSumError
        If the public key is none, or one that gives every partner the same secret.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise SecureSumError("a public key cannot be used for key agreement") from error
    both = b"".join(sorted((public_of(private), public)))
    return derive(secret, purpose.encode() + b"\0" + both, terms)


def derive(secret: bytes, purpose: bytes, terms: Terms) -> bytes:
    """Derive 32 bytes from a secret for one purpose in one round."""
    return HKDF(hashes.SHA256(), KEY, salt=terms.digest, info=purpose).derive(secret)


def commit(seed: bytes, terms: Terms) -> bytes:
    """Return a digest of a seed that says nothing about what is derived from it otherwise, 32 bytes."""
    digest = hmac.HMAC(seed, hashes.SHA256())
    digest.update(b"commitment" + terms.digest)
    return digest.finalize()
