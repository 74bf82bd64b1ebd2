"""Enrolment of a device in a fleet by two TOML files without secrets: the device's card and the fleet's bundle.

A device generates its keys and writes its *card*: both public keys, signed with one of them. The operator of the server
enrols the card and returns a *bundle*: the server's address, the keys to trust, and the list of members. The bundle is
signed by the certificate authority whose certificate it contains. A device that received this certificate beforehand
can therefore accept the bundle over an untrusted channel.

While a fleet changes its authority, the bundle has the certificates of both, and the one that has signed it comes
first: a device that takes it trusts either (`fedoel.server.operate.authority`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from ..errors import ConfigError, EnrolmentError
from ..formats import BUNDLE, CARD, Format
from ..settings import Scalar, from_table, parse_toml
from .log import head_from_text
from .trust import Trust

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # of a host's name
LONGEST_HOST = 253
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
CARD_HEAD = "# The public keys of a device, for `fedoel server enroll`. Nothing in this file is secret.\n"
BUNDLE_HEAD = "# What a device needs of its fleet, for `fedoel device join`. Nothing in this file is secret.\n"
# Fields that earlier releases do not write.
LATER: Mapping[str, Any] = MappingProxyType({"identity": "", "trust": {}, "log": "", "succession": ""})
File = TypeVar("File", "Card", "Bundle")


@dataclass(frozen=True, slots=True)
class Card:
    """A device's public keys.

    Parameters
    ----------
    name
        At most 32 lower-case letters, digits and hyphens.
    node_key
        Public key of its Flower node in OpenSSH format: ECDSA on the curve P-384.
    identity
        Public Ed25519 key that identifies it in secure aggregation, 32 bytes in hexadecimal.
    signature
        Signature of the other fields by the identity, in hexadecimal.

    Raises
    ------
    EnrolmentError
        If name or keys are malformed.
    """

    name: str
    node_key: str
    identity: str
    signature: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_node_key(self.node_key)
        _from_hex(self.identity, 32, "an identity")

    @property
    def fingerprint(self) -> str:
        """What people compare at both ends: whoever replaces the file on its way cannot make another with the same."""
        return _fingerprint(self.node_key, self.identity)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a device needs to know of its fleet.

    Parameters
    ----------
    name, number
        The device's name, and its index in the fleet, from 0, which determines its games.
    server
        Address of the fleet's server, ``HOST:PORT``.
    ca
        Certificates of the authorities that may have signed the server's certificate, PEM. The first one's key has
        signed the bundle; a second one, of the next authority, follows while the fleet changes its authority.
    fleet_key
        Public Ed25519 key that verifies requests, versions and lists of members, in hexadecimal.
    members
        The signed list of members (`fedoel.protocol.fleet.membership`).
    model
        SHA-256 of the base model's file in hexadecimal; empty if devices play without a model.
    signature
        Signature of the other fields by the authority, ECDSA with SHA-256, in hexadecimal.
    identity
        Public Ed25519 key of the device that the bundle is for, in hexadecimal; empty in bundles of earlier releases.
    trust
        What the fleet proposes for `[trust]` in the device's settings; empty in bundles of earlier releases.
    log
        Head of the fleet's log (`fedoel.protocol.fleet.log`), with which a new device begins; empty in bundles of
        earlier releases.
    succession
        Steps from the fleet's earlier keys to this one (`fedoel.protocol.fleet.succession`), oldest first; empty for a
        fleet that has its first key.

    Raises
    ------
    EnrolmentError
        If a field is malformed.
    """

    name: str
    number: int
    server: str
    ca: str
    fleet_key: str
    members: str
    model: str = ""
    signature: str = ""
    identity: str = ""
    trust: Mapping[str, Scalar] = field(default_factory=dict)
    log: str = ""
    succession: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_address(self.server)
        try:
            from_table(Trust, self.trust, "trust.")
        except ConfigError as error:
            raise EnrolmentError(f"the bundle's proposal cannot be used: {error}") from error
        if self.identity:
            _from_hex(self.identity, 32, "an identity")
        if self.log:
            try:
                head_from_text(self.log)
            except ConfigError as error:
                raise EnrolmentError(f"the bundle cannot be used: {error}") from error
        _from_hex(self.fleet_key, 32, "a fleet's key")
        if self.number < 0 or (self.model and not re.fullmatch("[0-9a-f]{64}", self.model)):
            raise EnrolmentError("a bundle needs the device's number and the model's SHA-256: ask for it again")

    @property
    def fingerprint(self) -> str:
        """Of the fleet: of its authority and its public key; see `Card.fingerprint`."""
        return _fingerprint(self.ca, self.fleet_key)


def check_name(name: str) -> str:
    """Return a device's name; raise `EnrolmentError` if it is malformed."""
    if not NAME.fullmatch(name):
        raise EnrolmentError(f"{name!r} is no name for a device: use up to 32 lower-case letters, digits and hyphens")
    return name


def check_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; raise `EnrolmentError` if the address is malformed."""
    match = ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[2]) < 65_536 or not _is_host(match[1]):
        raise EnrolmentError(f"{address!r} is no address: write {_form_of(address)}")
    return match[1].strip("[]"), int(match[2])


def _is_host(host: str) -> bool:
    """Whether a host is an address of IPv6 in brackets, one of IPv4, or a name that DNS can have (RFC 1123)."""
    if host.startswith("["):
        return _reads(IPv6Address, host.strip("[]"))
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdecimal():  # no name ends in a number
        return _reads(IPv4Address, host)
    return len(host) <= LONGEST_HOST and all(map(LABEL.fullmatch, labels))


def _reads(kind: type[IPv4Address | IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _form_of(address: str) -> str:
    """Return how an address is written that somebody has written in another way."""
    form = "HOST:PORT, e.g. fleet.example.org:443"
    if "://" in address:
        return f"{form}, without what is in front of ://"
    if "%" in address:
        return f"{form}; an address with a zone is known to one machine only"
    if not address.isascii():
        return f"{form}, and a name with other letters in its ASCII form, xn--..."
    if address.count(":") > 1 and "]" not in address:
        return f"{form}, and an address of IPv6 in brackets, [::1]:443"
    return f"{form}, with a port from 1 to 65535"


def sign_card(key: Ed25519PrivateKey, name: str, node_key: str) -> Card:
    """Return the signed card of a device whose identity is this key."""
    card = Card(name, node_key, key.public_key().public_bytes_raw().hex())
    return replace(card, signature=key.sign(_signed(CARD, _written(card))).hex())


def card_from_text(text: str) -> Card:
    """Read a device's card and check its signature.

    Raises
    ------
    EnrolmentError
        If the text is malformed, or the signature is invalid.
    """
    card, received = _from_toml(Card, text, "a device's public keys")
    try:  # libsodium refuses an identity of low order, of which one signature can hold for every message
        key = VerifyKey(bytes.fromhex(card.identity))
        key.verify(_signed(CARD, received), _from_hex(card.signature, 64, "a signature"))
    except (CryptoError, ValueError) as error:
        raise EnrolmentError("the device's public keys were changed on their way: copy the file again") from error
    return card


def sign_bundle(key: ec.EllipticCurvePrivateKey, bundle: Bundle) -> Bundle:
    """Return the bundle with the authority's signature."""
    return replace(bundle, signature=key.sign(_signed(BUNDLE, _written(bundle)), ec.ECDSA(SHA256())).hex())


def bundle_from_text(text: str, authority: bytes | None = None) -> Bundle:
    """Read a bundle and check its signature.

    Parameters
    ----------
    text
        What `to_text` returned.
    authority
        Certificates of the authorities, PEM, that the device received beforehand; one of them must have signed the
        bundle. Without them, the certificate in the bundle is trusted, and hence the channel by which the bundle came.

    Raises
    ------
    EnrolmentError
        If the text is malformed, the signature is invalid, or the bundle contains another authority's certificate.
    """
    bundle, received = _from_toml(Bundle, text, "a fleet's bundle")
    try:
        certificate = x509.load_pem_x509_certificates(bundle.ca.encode())[0]
        if authority is not None and certificate not in x509.load_pem_x509_certificates(authority):
            raise EnrolmentError(
                "the bundle comes from another authority than the certificate that this device has: if the fleet has a "
                "new one, which you have from whoever runs the server, join with it as --ca"
            )
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise EnrolmentError("the bundle's authority has a key of an unsupported type: ask for the bundle again")
        key.verify(bytes.fromhex(bundle.signature), _signed(BUNDLE, received), ec.ECDSA(SHA256()))
    except EnrolmentError:
        raise
    except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentError("the bundle was changed on its way: copy the file again") from error
    return bundle


def _fingerprint(*keys: str) -> str:
    """Return the first 80 bits of the SHA-256 of keys, in five groups of hexadecimal digits."""
    digits = hashlib.sha256("\0".join(key.strip() for key in keys).encode()).hexdigest()
    return " ".join(digits[at : at + 4] for at in range(0, 20, 4))


def _signed(form: Format, values: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: the type of file and all of its fields, known or not, but the signature."""
    signed = {name: value for name, value in values.items() if name != "signature"}
    return form.purpose + json.dumps(signed, sort_keys=True).encode()


def _written(file: Card | Bundle) -> dict[str, Any]:
    """Return the fields of a file, as earlier releases knew them where they have no identity or no proposal."""
    return {name: value for name, value in asdict(file).items() if name not in LATER or value}


def to_text(file: Card | Bundle) -> str:
    """Return the TOML text of a card or bundle: JSON strings with ASCII characters only are TOML basic strings."""
    values = _written(file)
    table = values.pop("trust", {})
    text = (CARD_HEAD if isinstance(file, Card) else BUNDLE_HEAD) + _lines(values)
    return f"{text}\n[trust]\n{_lines(table)}" if table else text


def _lines(values: Mapping[str, Scalar]) -> str:
    return "".join(f"{name.replace('_', '-')} = {json.dumps(value)}\n" for name, value in values.items())


def _from_toml(file_type: type[File], text: str, description: str) -> tuple[File, Mapping[str, Any]]:
    """Read a file, and return all of its fields as well: a later release may have signed some that this one lacks."""
    try:
        values: Mapping[str, Any] = parse_toml(text)
    except ConfigError as error:
        raise EnrolmentError(f"this file is not {description}: {error}") from error
    received, expected = {name.replace("-", "_"): value for name, value in values.items()}, get_type_hints(file_type)
    arguments = {name: value for name, value in received.items() if name in expected}
    if file_type is Bundle:
        arguments, expected = {**LATER, **arguments}, {**expected, "trust": dict}
    if {name: type(value) for name, value in arguments.items()} != expected:
        raise EnrolmentError(f"this file is not {description}: it needs {', '.join(expected)}")
    return file_type(**arguments), received


def _from_hex(text: str, size: int, name: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise EnrolmentError(f"{name} has {size} bytes in hexadecimal: copy the file again")
    return value


def _check_node_key(text: str) -> None:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm, NotImplementedError):  # the last for a compressed point
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1) or "\n" in text:
        raise EnrolmentError("a node's key is an OpenSSH public key on the curve P-384, which this is not")
