"""Joining a fleet: the device makes its keys and its card for the server, and takes in the fleet's bundle."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ...protocol.errors import ConfigError, EnrolmentError, VersionError
from ...protocol.fleet.enrolment import (
    Bundle,
    bundle_from_text,
    card_from_text,
    check_address,
    check_name,
    sign_card,
    to_text,
)
from ...protocol.fleet.log import Witness, head_from_text, witness_text
from ...protocol.fleet.membership import FLEET_KEY, MEMBERS, Members, load_members, read_members
from ...protocol.fleet.succession import leads_to
from ...protocol.fleet.trust import Trust
from ...protocol.host.files import make_private_folder, replace_file
from ...protocol.host.lock import in_turn, owner
from ...protocol.settings import from_table, to_table
from ..store import key_from_file
from .folder import DeviceFolder
from .settings import DeviceSettings, Play, hours_of, read_settings, settings_file, with_proposal

SERVER = "server"  # file with the address given as --server


def join(
    folder: DeviceFolder,
    name: str | None = None,
    bundle: Path | None = None,
    server: str | None = None,
    ca: Path | None = None,
    hours: str = "",
) -> int:
    """Make keys and write the card; with a bundle, keep the bundle. Both can be repeated.

    Parameters
    ----------
    name
        What the device calls itself; makes its keys.
    bundle
        What the server has written for it.
    server, ca
        Address and authority that a bundle must name.
    hours
        When the device plays, as in `device.toml`.
    """
    hours_of(hours)
    authority = _certificate(ca) if ca else None
    if server:
        check_address(server)
    if name:
        check_name(name)
    elif not folder.identity.exists():
        raise ConfigError(
            f"{folder.path} has no keys yet: run `fedoel device join {quote(str(folder.path))} --name NAME`"
        )
    try:
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with in_turn(folder.keys_lock):
            _join(folder, name, bundle, server, authority, hours)
    except OSError as error:
        raise ConfigError(f"{error.filename or folder.path}: {error.strerror}; choose another folder") from error
    return 0


def _join(
    folder: DeviceFolder, name: str | None, bundle: Path | None, server: str | None, authority: bytes | None, hours: str
) -> None:
    if name:
        card = make_card(folder, name, hours)
        print(f"hand {card} to whoever runs the server: fedoel server enroll DIR {quote(card.name)}")
        fingerprint = card_from_text(card.read_text(encoding="utf-8")).fingerprint
        print(f"its fingerprint, which that command must print, too: {fingerprint}")
    trusted = folder.authority.read_bytes() if folder.authority.exists() else b""
    taken = take_bundle(folder, bundle, server, authority) if bundle else None
    if authority and not taken:  # a bundle that was taken has it, and may have its successor as well
        replace_file(folder.authority, authority)
    if server:
        replace_file(folder.path / SERVER, server)
    if taken:
        print(f"{taken.name} is device {taken.number} of the fleet at {taken.server}")
        print(f"the fleet's fingerprint, which the server must have printed, too: {taken.fingerprint}")
        _show_trust(folder, taken)
        place = quote(str(folder.path))
        if folder.authority.read_bytes() != trusted and owner(folder.process):
            print("restart the device's service: it reads the authority's certificate when it starts")
        print(f"next: fedoel device doctor {place}, then fedoel device start {place}")


def _show_trust(folder: DeviceFolder, bundle: Bundle) -> None:
    """Tell the owner what this device answers, and where the fleet proposes something else."""
    trust, proposal = read_settings(folder.settings).trust, from_table(Trust, bundle.trust)
    print(f"from now on, whoever asks ([trust] in {folder.settings}, which only you change):")
    print(*(f"  {sentence}" for sentence in trust.words()), sep="\n")
    values, proposed = to_table(trust), to_table(proposal)
    others = [f"{name} = {proposed[name]!r}" for name in bundle.trust if proposed[name] != values[name]]
    if others:
        print(f"the fleet proposes other values, which were not taken: {', '.join(others)}")


def make_card(folder: DeviceFolder, name: str, hours: str = "") -> Path:
    """Make the device's keys, unless it has them, and write its card: the public keys, signed.

    Returns
    -------
    Path
        The card's file, for whoever runs the server.
    """
    for private in (folder.path, folder.identity.parent):
        make_private_folder(private)
    if not folder.identity.exists():
        node = ec.generate_private_key(ec.SECP384R1())
        pem = node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        replace_file(folder.node_key, pem, secret=True)
        public = node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        replace_file(folder.node_key.with_suffix(".pub"), public)
        replace_file(folder.identity, Ed25519PrivateKey.generate().private_bytes_raw().hex(), secret=True)
    key_from_file(folder.game_key)
    if not folder.settings.exists():
        replace_file(folder.settings, settings_file(DeviceSettings(Play(hours))))
    identity = _identity(folder)
    card = sign_card(identity, name, folder.node_key.with_suffix(".pub").read_text(encoding="ascii"))
    path = folder.path / f"{name}.pub"
    replace_file(path, to_text(card))
    return path


def take_bundle(folder: DeviceFolder, path: Path, server: str | None = None, authority: bytes | None = None) -> Bundle:
    """Check a bundle and keep it in the device's folder.

    Parameters
    ----------
    path
        The bundle.
    server, authority
        Address and authority's certificate that it must name; by default those that the device was given before. The
        owner may give another authority than the device knows; a bundle by itself cannot.

    Raises
    ------
    EnrolmentError
        If the bundle is damaged, is another device's, names another server than ``--server``, or comes from another
        authority than the device was given, or another fleet than the one that the device has joined, or lacks the next
        authority, which the device has.
    VersionError
        If the bundle's list of members is not signed by the fleet's key, or is older than the device's own.
    ConfigError
        If the device's own settings cannot be read: what the fleet proposes could not be added to them.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(f"{path} cannot be read: give the .fleet file that `server enroll` has written") from error
    trusted = authority
    if authority is None and folder.authority.exists():
        trusted = folder.authority.read_bytes()
    if server is None and (given := folder.path / SERVER).exists():
        server = given.read_text(encoding="ascii")
    bundle = bundle_from_text(text, trusted)
    if authority is None and trusted:
        _check_authorities(trusted, bundle, path)
    if server is not None and server != bundle.server:
        raise EnrolmentError(
            f"the bundle names {bundle.server}, and --server was {server}: get the bundle of that server, or join with "
            f"--server {bundle.server}"
        )
    identity = _identity(folder)
    members = read_members(bytes.fromhex(bundle.fleet_key), bundle.members)
    public = identity.public_key().public_bytes_raw()
    if bundle.identity and bundle.identity != public.hex():
        raise EnrolmentError(
            f"the bundle is for another device, {bundle.name!r}: give this one the bundle that was made from its own "
            ".pub file"
        )
    if public not in members.identities:
        raise EnrolmentError(f"the bundle of {bundle.name!r} is not this device's: its members do not include it")
    if known := _known_members(folder, bundle):
        try:
            known.check_replaceable_by(members)
        except VersionError as error:
            raise VersionError(
                f"{path}: {error}: have the server make a new one with `fedoel server enroll`"
            ) from error
    _propose(folder, bundle)
    _keep(folder, bundle)
    return bundle


def _keep(folder: DeviceFolder, bundle: Bundle) -> None:
    """Write what a checked bundle holds into the device's folder."""
    if bytes.fromhex(bundle.fleet_key) != bytes.fromhex(_key_before(folder)):
        for version in folder.versions.glob("*.npz"):  # which the key before has signed
            version.unlink()
    replace_file(folder.fleet / FLEET_KEY, bundle.fleet_key)
    replace_file(folder.fleet / MEMBERS, bundle.members)
    if bundle.log and not folder.log_head.exists():
        replace_file(folder.log_head, witness_text(Witness(head_from_text(bundle.log))))
    replace_file(folder.bundle, to_text(bundle))
    replace_file(folder.authority, bundle.ca)  # last: until then the authorities of before vouch for the new bundle


def _check_authorities(known: bytes, bundle: Bundle, path: Path) -> None:
    """Refuse a bundle from before the fleet's next authority, which the device knows: it would be cut off with it.

    Raises
    ------
    EnrolmentError
        If the bundle lacks an authority that follows the one that has signed it.
    """
    authorities, of_bundle = map(x509.load_pem_x509_certificates, (known, bundle.ca.encode()))
    later = authorities[authorities.index(of_bundle[0]) + 1 :]
    if not set(later) <= set(of_bundle):
        raise EnrolmentError(
            f"{path} is older than the fleet's authority that this device has taken: have the server make a new one "
            "with `fedoel server enroll`"
        )


def _propose(folder: DeviceFolder, bundle: Bundle) -> None:
    """Add what the fleet proposes to the owner's settings; what the owner, or an earlier bundle, has set stays."""
    if not folder.settings.exists():
        replace_file(folder.settings, settings_file(DeviceSettings()))
    read_settings(folder.settings)
    text = folder.settings.read_text(encoding="utf-8-sig")
    if (proposed := with_proposal(text, bundle.trust)) != text:
        replace_file(folder.settings, proposed)


def _key_before(folder: DeviceFolder) -> str:
    """Return the public key of the fleet that the device has joined, in hexadecimal; empty if it has joined none."""
    path = folder.fleet / FLEET_KEY
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def _known_members(folder: DeviceFolder, bundle: Bundle) -> Members | None:
    """Return the list of members that the device has; None if it has none that can be read.

    Raises
    ------
    EnrolmentError
        If the device belongs to a fleet with another key, which has not signed the bundle's as its successor.
    """
    known = _key_before(folder)
    if not known:
        return None
    if not leads_to(bundle.succession, known, bundle.fleet_key):
        raise EnrolmentError(
            "the bundle is of a fleet with another key than the one that this device has joined: to change fleets, use "
            "another folder, or `fedoel device wipe` first"
        )
    try:
        return load_members(folder.fleet)[0]
    except ConfigError:  # a damaged list is what joining again repairs
        return None


def _identity(folder: DeviceFolder) -> Ed25519PrivateKey:
    """Return the device's private key."""
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(folder.identity.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder.identity} holds no key of this device ({error}): put back a copy of it, or delete it and join as "
            f"a new device: fedoel device join {quote(str(folder.path))} --name NAME"
        ) from error


def _certificate(path: Path) -> bytes:
    try:
        pem = path.read_bytes()
        x509.load_pem_x509_certificate(pem)
        return pem
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca {path} is no certificate ({error}): give the server's ca.crt") from error
