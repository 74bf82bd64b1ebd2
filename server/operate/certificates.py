"""The fleet's own certificate authority, and the server's certificate: EC P-256, X.509 version 3 (RFC 5280)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...protocol.errors import ConfigError

AUTHORITY_DAYS, SERVER_DAYS = 3650, 398
LOCAL = ("localhost", "127.0.0.1", "::1")  # for commands on the server itself
CLOCK_SKEW = timedelta(hours=1)
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)  # before this code; boards without a battery start in 1970

Key = ec.EllipticCurvePrivateKey


def check_clock(now: datetime | None = None) -> None:
    """Raise `ConfigError` if the clock is so far behind that a certificate would have ended once it is set."""
    now = now or datetime.now(UTC)
    if now < EARLIEST:
        raise ConfigError(f"the clock of this machine says {now:%Y-%m-%d}: set it first, timedatectl set-ntp true")


def make_key() -> Key:
    """Generate a private key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def make_authority(key: Key, now: datetime | None = None) -> x509.Certificate:
    """Make the authority's self-signed certificate, which may sign end-entity certificates only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedoel fleet authority")])
    builder = _builder(name, name, key, AUTHORITY_DAYS, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(certificates=True), critical=True)
    return builder.add_extension(_key_id(key), critical=False).sign(key, SHA256())


def make_server_certificate(
    hosts: Sequence[str], key: Key, authority: x509.Certificate, authority_key: Key, now: datetime | None = None
) -> x509.Certificate:
    """Make the server's certificate, for its host names and addresses and for the loopback addresses.

    Raises
    ------
    ConfigError
        If a host is neither a valid name nor an address.
    """
    names = [_name(host) for host in dict.fromkeys((*hosts, *LOCAL))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    builder = _builder(subject, authority.subject, key, SERVER_DAYS, now)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(_key_id(key), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_id(authority_key))
    return builder.add_extension(issuer, critical=False).sign(authority_key, SHA256())


def is_for(host: str, certificate: x509.Certificate) -> bool:
    """Whether a certificate of the server names this host."""
    return _name(host) in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def certificate_to_pem(certificate: x509.Certificate) -> bytes:
    """Encode a certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def belongs(key: Key, certificate: x509.Certificate) -> bool:
    """Whether a private key is the one of a certificate."""
    return key.public_key() == certificate.public_key()


def issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def key_to_pem(key: Key) -> str:
    """Encode a private key in PEM without encryption; the mode of its file must protect it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_from_pem(text: bytes, name: str = "ca.key") -> Key:
    """Decode a private key from PEM, of the file with this name.

    Raises
    ------
    ConfigError
        If it cannot be decoded, or is not an elliptic curve key.
    """
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the key in {name} cannot be read: put the file back, or make a new fleet") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"the key in {name} must be an elliptic curve key, as `fedoel server init` makes it")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + timedelta(days=days))
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or any(character in host for character in " /:*"):
            raise ValueError("a host name has letters, digits, hyphens and dots")
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"--host {host!r} is no host name and no address: {error}") from error


def _key_id(key: Key) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _usage(certificates: bool) -> x509.KeyUsage:
    """Return the key usage. Both keys sign data: the authority signs bundles, the server TLS handshakes."""
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=certificates, crl_sign=certificates, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
