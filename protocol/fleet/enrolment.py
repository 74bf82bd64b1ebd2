"""How a device joins a fleet: two small text files, one each way, that say nothing secret.

A device makes its keys itself and writes its *card*: the two public keys, signed with one of them. Whoever runs the
server enrols the card and hands back a *bundle*: where the server is, whose signatures to believe, and who else is a
member. The bundle is signed by the certificate authority whose certificate it carries, so that a device that was given
that certificate beforehand can take the bundle from anywhere. Both are TOML.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ..errors import EnrolmentError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
CARD_HEAD = "# The public keys of a device, for `fedoel server enroll`. Nothing in this file is secret.\n"
BUNDLE_HEAD = "# What a device needs of its fleet, for `fedoel device join`. Nothing in this file is secret.\n"
Kind = TypeVar("Kind", "Card", "Bundle")


@dataclass(frozen=True, slots=True)
class Card:
    """What a device tells about itself.

    Parameters
    ----------
    name
        At most 32 lower-case letters, digits and hyphens.
    node_key
        Public key of its Flower node, as OpenSSH writes it: EC on P-384.
    identity
        Public Ed25519 key that it signs with in a secure sum, 32 bytes in hexadecimal.
    signature
        Of all of this, by the identity.
    """

    name: str
    node_key: str
    identity: str
    signature: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_node_key(self.node_key)
        _hex(self.identity, 32, "an identity")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a fleet tells a device.

    Parameters
    ----------
    name, number
        The device's name, and its place in the fleet from 0, which picks its games.
    server
        Where the fleet's server is, ``HOST:PORT``.
    ca
        Certificate of the authority that vouches for the server, PEM.
    fleet_key
        Public Ed25519 key that signs requests, versions and members, in hexadecimal.
    members
        The signed list of members (`fedoel.protocol.fleet.members`).
    model
        SHA-256 of the base model's file in hexadecimal, or empty where devices play without one.
    signature
        Of all of this, by the authority: ECDSA with SHA-256.
    """

    name: str
    number: int
    server: str
    ca: str
    fleet_key: str
    members: str
    model: str = ""
    signature: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_address(self.server)
        _hex(self.fleet_key, 32, "a fleet's key")
        if self.number < 0 or (self.model and not re.fullmatch("[0-9a-f]{64}", self.model)):
            raise EnrolmentError("a bundle needs the device's number and the model's SHA-256: ask for it again")


def check_name(name: str) -> str:
    """Return the name of a device, or raise `EnrolmentError`."""
    if not NAME.fullmatch(name):
        raise EnrolmentError(f"{name!r} is no name for a device: use up to 32 lower-case letters, digits and hyphens")
    return name


def check_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, or raise `EnrolmentError`."""
    found = ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[2]) < 65_536:
        raise EnrolmentError(f"{address!r} is no address: write HOST:PORT, e.g. fleet.example.org:443")
    return found[1].strip("[]"), int(found[2])


def sign_card(key: Ed25519PrivateKey, name: str, node_key: str) -> Card:
    """Make the card of a device whose identity is this key."""
    card = Card(name, node_key, key.public_key().public_bytes_raw().hex())
    return Card(card.name, card.node_key, card.identity, key.sign(_signed(card)).hex())


def card_to_text(card: Card) -> str:
    """Write what `card_from_text` reads."""
    return CARD_HEAD + _to_toml(card)


def card_from_text(text: str) -> Card:
    """Read and check a device's card.

    Raises
    ------
    EnrolmentError
        If it is something else, or was changed on its way.
    """
    card = _from_toml(Card, text, "a device's public keys")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(card.identity))
        key.verify(_hex(card.signature, 64, "a signature"), _signed(card))
    except (InvalidSignature, ValueError) as error:
        raise EnrolmentError("the device's public keys were changed on their way: copy the file again") from error
    return card


def sign_bundle(key: ec.EllipticCurvePrivateKey, bundle: Bundle) -> Bundle:
    """Return the bundle with the authority's signature."""
    plain = {**asdict(bundle), "signature": key.sign(_signed(bundle), ec.ECDSA(SHA256())).hex()}
    return Bundle(**plain)


def bundle_to_text(bundle: Bundle) -> str:
    """Write what `bundle_from_text` reads."""
    return BUNDLE_HEAD + _to_toml(bundle)


def bundle_from_text(text: str, authority: bytes | None = None) -> Bundle:
    """Read and check a bundle.

    Parameters
    ----------
    authority
        Certificate of the authority, PEM, that the device was given beforehand; without it, the bundle's own is
        believed, and with it whoever handed the bundle over.

    Raises
    ------
    EnrolmentError
        If it is something else, was changed on its way, or comes from another authority.
    """
    bundle = _from_toml(Bundle, text, "a fleet's bundle")
    try:
        own = x509.load_pem_x509_certificate(bundle.ca.encode())
        if authority is not None and x509.load_pem_x509_certificate(authority) != own:
            raise EnrolmentError("the bundle comes from another authority than the certificate that this device has")
        key = own.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise EnrolmentError("the bundle's authority signs in a way that is not known here: ask for it again")
        key.verify(bytes.fromhex(bundle.signature), _signed(bundle), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, EnrolmentError):
            raise
        raise EnrolmentError("the bundle was changed on its way: copy the file again") from error
    return bundle


def _signed(item: Card | Bundle) -> bytes:
    """Everything but the signature, and what kind of file it is."""
    values = {name: value for name, value in asdict(item).items() if name != "signature"}
    return f"fedoel {type(item).__name__} 1\0{json.dumps(values, sort_keys=True)}".encode()


def _to_toml(item: Card | Bundle) -> str:
    """Write fields one a line; JSON's strings of plain ASCII are TOML's basic strings."""
    return "".join(f"{name.replace('_', '-')} = {json.dumps(value)}\n" for name, value in asdict(item).items())


def _from_toml(kind: type[Kind], text: str, what: str) -> Kind:
    try:
        values: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnrolmentError(f"this file is not {what}: {error}") from error
    named, types = {name.replace("-", "_"): value for name, value in values.items()}, get_type_hints(kind)
    wanted = {field.name: types[field.name] for field in fields(kind)}
    if {name: type(value) for name, value in named.items()} != wanted:
        raise EnrolmentError(f"this file is not {what}: it needs {', '.join(wanted)}, and nothing else")
    return kind(**named)


def _hex(text: str, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise EnrolmentError(f"{what} has {size} bytes in hexadecimal: copy the file again")
    return value


def _check_node_key(text: str) -> None:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1) or "\n" in text:
        raise EnrolmentError("a node's key is an OpenSSH public key on the curve P-384, which this is not")
