"""Keys of devices: a permanent Ed25519 identity (RFC 8032), and X25519 keys for one round that it signs.

Every signature and derived key is bound to the terms of its round, so that none is valid in another round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from ..errors import SecureSumError
from ..formats import SECURE_SUM
from .terms import Terms

KEY = 32
SIGNATURE = 64
ADVERTISED, CONFIRMED = "advertised keys", "survivors"  # purposes of signatures


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's permanent signing key."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, purpose: str, terms: Terms, body: bytes) -> bytes:
        """Return the signature, 64 bytes, of a message for one purpose in one round."""
        return self.private.sign(_signed(purpose, terms, body))


def check_signature(public: bytes, signature: bytes, purpose: str, terms: Terms, body: bytes) -> None:
    """Check an identity's signature of a message for this purpose and round.

    A device checks one of every member of a cohort, most of what a round costs it: libsodium takes half of the time
    that OpenSSL does. It refuses keys of low order, too, of which a signature can hold for every message.

    Raises
    ------
    SecureSumError
        If the signature is invalid.
    """
    try:
        VerifyKey(public).verify(_signed(purpose, terms, body), signature)
    except (CryptoError, ValueError) as error:
        raise SecureSumError(f"a signature of {purpose} does not hold") from error


def _signed(purpose: str, terms: Terms, body: bytes) -> bytes:
    return SECURE_SUM.purpose[:-1] + b" " + purpose.encode() + b"\0" + terms.digest + body


@dataclass(frozen=True, slots=True)
class Advert:
    """A device's public keys of a round, signed by its identity.

    Parameters
    ----------
    position
        The device's index in the cohort.
    identity
        Public Ed25519 key, 32 bytes.
    mask_key, seal_key
        Public X25519 keys for pair masks and for sealing shares, 32 bytes each.
    commitment
        Digest of the seed of its own mask, 32 bytes, by which a wrongly recovered seed is detected.
    signature
        Signature of all of this, 64 bytes.
    """

    position: int
    identity: bytes
    mask_key: bytes
    seal_key: bytes
    commitment: bytes
    signature: bytes

    SIZE = 2 + 4 * KEY + SIGNATURE

    def to_bytes(self) -> bytes:
        """Return the `SIZE` bytes of the wire format."""
        return self.position.to_bytes(2, "big") + self.identity + self._body() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Advert:
        """Read what `to_bytes` wrote; raise `SecureSumError` if the size is wrong. `check` verifies the content."""
        if len(data) != cls.SIZE:
            raise SecureSumError(f"advertised keys take {cls.SIZE} bytes, not {len(data)}")
        parts = [data[2 + KEY * n : 2 + KEY * (n + 1)] for n in range(4)]
        return cls(int.from_bytes(data[:2], "big"), parts[0], parts[1], parts[2], parts[3], data[2 + 4 * KEY :])

    @classmethod
    def signed(
        cls, identity: Identity, terms: Terms, position: int, mask_key: bytes, seal_key: bytes, commitment: bytes
    ) -> Advert:
        """Return the advert of a position in a round with its signature."""
        body = position.to_bytes(2, "big") + mask_key + seal_key + commitment
        return cls(position, identity.public, mask_key, seal_key, commitment, identity.sign(ADVERTISED, terms, body))

    def check(self, terms: Terms, members: Iterable[bytes]) -> None:
        """Check that a member of the fleet has signed these keys for this position and round.

        Raises
        ------
        SecureSumError
            If the identity is not a member or the signature is invalid.
        """
        if self.identity not in members:
            raise SecureSumError("advertised keys belong to no member of this fleet")
        body = self.position.to_bytes(2, "big") + self._body()
        check_signature(self.identity, self.signature, ADVERTISED, terms, body)

    def _body(self) -> bytes:
        return self.mask_key + self.seal_key + self.commitment


def adverts_from_bytes(data: bytes) -> list[Advert]:
    """Read concatenated adverts."""
    return [Advert.from_bytes(data[start : start + Advert.SIZE]) for start in range(0, len(data), Advert.SIZE)]


class AgreementKey:
    """A private X25519 key, 32 bytes, with its public key, which takes as long to compute as an agreement."""

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, public: bytes, purpose: str, terms: Terms) -> bytes:
        """Return the 32-byte key that two devices share for a purpose: X25519 (RFC 7748), then HKDF-SHA256 (RFC 5869).

        Raises
        ------
        SecureSumError
            If the public key is malformed, or of low order, so that the shared secret is not secret.
        """
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise SecureSumError("a public key cannot be used for key agreement") from error
        both = b"".join(sorted((self.public, public)))
        return derive(secret, purpose.encode() + b"\0" + both, terms)


def derive(secret: bytes, purpose: bytes, terms: Terms) -> bytes:
    """Derive 32 bytes from a secret for one purpose in one round by HKDF-SHA256."""
    return HKDF(hashes.SHA256(), KEY, salt=terms.digest, info=purpose).derive(secret)


def commit(seed: bytes, terms: Terms) -> bytes:
    """Return a commitment to a seed, 32 bytes, HMAC-SHA256; independent of the keys derived from the seed."""
    digest = hmac.HMAC(seed, hashes.SHA256())
    digest.update(b"commitment" + terms.digest)
    return digest.finalize()
