"""The fleet's certificate authority, and the change to the next one: `fedoel server rotate DIR --certificates`.

Devices trust the authorities of `ca.crt`, whose text is in their bundles. The next authority is added to it first,
while the present one goes on to sign bundles and the server's certificate; devices that take a new bundle in this
*overlap* trust both. `--finish` ends it: the next authority issues a new certificate of the server and signs bundles
from then on, and the old one is retired. Both steps can be repeated, which finishes one that was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from shlex import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from ...protocol.errors import ConfigError, FedoelError
from ...protocol.host.files import check_secret, create_secret, make_private_folder, replace_file, sync, write_whole
from ...protocol.host.lock import in_turn, one_owner
from .certificates import (
    Key,
    belongs,
    certificate_to_pem,
    check_clock,
    is_for,
    issued,
    key_from_pem,
    key_to_pem,
    make_authority,
    make_key,
    make_server_certificate,
)
from .folder import ServerFolder, Settings, read_settings
from .roll import Enrolled, devices, read_roll

SOON = 400  # days: a certificate of the server may last almost as long


def begin(folder: ServerFolder) -> int:
    """Make the next authority, which devices trust beside the present one as soon as they have a new bundle.

    The server may run: nothing that it has loaded changes.

    Raises
    ------
    ConfigError
        If a key or certificate is missing or damaged, or a change was interrupted when it was being finished.
    """
    read_settings(folder)
    check_clock()
    with in_turn(folder.roll_lock), _writing(folder):
        present = issuer(folder)[0]
        create_secret(folder.next_ca_key, key_to_pem(make_key()))
        following = _next_key(folder)
        if belongs(following, present):
            raise ConfigError(f"the change before was interrupted: finish it first, {_command(folder, ' --finish')}")
        if _of_key(folder, following) is None:
            folder.next_ca_bundles.unlink(missing_ok=True)
            both = (*authorities(folder), make_authority(following))
            replace_file(folder.ca_certificate, b"".join(map(certificate_to_pem, both)))
    print(f"{folder.ca_certificate} has the fleet's next authority beside the present one, which is still in use")
    print("if a reverse proxy trusts this file, reload it. Devices need a new bundle; for every device:")
    print(f"  fedoel server enroll {quote(str(folder.path))} DEVICE.pub")
    print("  fedoel device join DIR --bundle NAME.fleet     # on the device; then restart its service")
    print(f"when all have joined again, stop the server and end the overlap: {_command(folder, ' --finish')}")
    return 0


def finish(folder: ServerFolder, anyway: bool = False) -> int:
    """Let the next authority take the place of the present one, whose files are kept in `retired`.

    Parameters
    ----------
    anyway
        Whether devices for which no bundle with the next authority was written are left behind.

    Raises
    ------
    ConfigError
        If the server runs, if a device would be left behind, or if a key or certificate is missing or damaged.
    """
    settings = read_settings(folder)
    check_clock()
    busy = f"runs the server in {folder.path}: stop it first"
    with one_owner(folder.lock, busy), in_turn(folder.roll_lock), _writing(folder):
        if not folder.next_ca_key.exists():
            print(f"the fleet has one authority: {_command(folder)} makes the next one")
            return 0
        behind = [] if belongs(_next_key(folder), issuer(folder)[0]) else without_bundle(folder)
        if behind and not anyway:
            raise ConfigError(
                f"no bundle with the next authority was written for {_names(behind)}: write theirs with `fedoel server "
                "enroll` first, or say --anyway, and they can connect again only when their owners join with --ca"
            )
        _finish(folder, settings)
    print(f"the next authority has issued the server's certificate; the old files are in {folder.retired}")
    print(f"start the server, and reload a reverse proxy: fedoel server start {quote(str(folder.path))}")
    print("a device that has only the old authority takes a new bundle with this folder's ca.crt:")
    print("  fedoel device join DIR --ca ca.crt --bundle NAME.fleet")
    print("any other device stops to trust the old one when it joins with the next bundle that you write for it")
    return 0


def issuer(folder: ServerFolder) -> tuple[x509.Certificate, Key]:
    """Return the certificate of the authority that issues now, and its key.

    Raises
    ------
    ConfigError
        If the key belongs to no certificate in `ca.crt`, or either cannot be read.
    OSError
        If the key's file is missing.
    """
    key = key_from_pem(folder.ca_key.read_bytes())
    certificate = _of_key(folder, key)
    if certificate is None:
        raise ConfigError(f"{folder.ca_key} is not the key of {folder.ca_certificate}: put both back from one copy")
    return certificate, key


def authorities(folder: ServerFolder) -> Sequence[x509.Certificate]:
    """Return the certificates in `ca.crt`: one, or two while the fleet changes its authority.

    Raises
    ------
    ConfigError
        If the file is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificates(folder.ca_certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.ca_certificate} cannot be read ({error}): put back a copy of it") from error


def server_certificate(folder: ServerFolder) -> x509.Certificate:
    """Return the server's certificate; raises `ConfigError` if it is missing or damaged."""
    try:
        return x509.load_pem_x509_certificate(folder.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder.certificate} cannot be read ({error}): `fedoel server init`, with its --host, makes it and its "
            "key anew"
        ) from error


def of_bundles(folder: ServerFolder) -> str:
    """Return what bundles say of the authorities: the issuer's certificate, and the next one. Raises as `issuer`."""
    known = authorities(folder)
    return b"".join(map(certificate_to_pem, known[known.index(issuer(folder)[0]) :])).decode("ascii")


def certify(folder: ServerFolder, settings: Settings, authority: x509.Certificate, authority_key: Key) -> None:
    """Make a key and a certificate of the server, which this authority issues."""
    key = make_key()
    # The commands of the server itself connect to the address on which the SuperLink listens.
    certificate = make_server_certificate((*settings.hosts, settings.local[0]), key, authority, authority_key)
    replace_file(folder.key, key_to_pem(key), secret=True)
    write_whole(folder.certificate, certificate_to_pem(certificate))


def check_certificate(folder: ServerFolder) -> None:
    """Check that the server's key and certificate belong together, and to an authority that devices may know.

    Raises
    ------
    ConfigError
        If they do not, as after an interrupted command, or if the certificate is not for the address on which the
        SuperLink listens.
    """
    known, certificate = authorities(folder), server_certificate(folder)
    try:
        good = belongs(_server_key(folder), certificate) and any(issued(certificate, one) for one in known)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.key}: {error}; `fedoel server init` makes it and its certificate anew") from error
    if not good:
        remedy = _command(folder, " --finish") if folder.next_ca_key.exists() else "fedoel server init, with its --host"
        raise ConfigError(
            f"{folder.certificate} is not of {folder.key.name} and {folder.ca_certificate.name}, as after a command "
            f"that was interrupted: do it again, {remedy}"
        )
    settings = read_settings(folder)
    host = settings.local[0]
    if not is_for(host, certificate):
        hosts = " ".join(f"--host {quote(name)}" for name in settings.hosts)
        again = f"fedoel server init {quote(str(folder.path))} {hosts} --port {settings.port} --listen"
        raise ConfigError(
            f"{folder.certificate} is not for {host}, on which the SuperLink listens (listen in server.toml), and the "
            f"server's own commands would refuse it: `{again} {quote(settings.listen)}` makes one that is"
        )


def note_bundle(folder: ServerFolder, number: int) -> None:
    """Write down that a device's bundle has the next authority, if there is one."""
    if folder.next_ca_key.exists() and len(authorities(folder)) > 1:
        write_whole(folder.next_ca_bundles, json.dumps(sorted({*_noted(folder), number})).encode())


def without_bundle(folder: ServerFolder) -> Sequence[Enrolled]:
    """Return the devices for which no bundle with the next authority was written."""
    noted = _noted(folder)
    return [device for device in read_roll(folder.roll).active if device.number not in noted]


def told(folder: ServerFolder) -> str:
    """Say how long the fleet's authority is valid, and what is next."""
    days = (authorities(folder)[0].not_valid_after_utc - datetime.now(UTC)).days
    line = f"authority: valid for {days} days"
    if folder.next_ca_key.exists():
        behind = without_bundle(folder)
        lacking = f"; without a bundle that has it: {_names(behind)}" if behind else ""
        return f"{line}, beside the next one until {_command(folder, ' --finish')}{lacking}"
    return f"{line}; {_command(folder)} makes the next one" if days <= SOON else line


def _finish(folder: ServerFolder, settings: Settings) -> None:
    """Move to the next authority; every step is skipped that an interrupted command has done."""
    key = _next_key(folder)
    authority = _of_key(folder, key)
    if authority is None:
        raise ConfigError(f"the change was interrupted when it began: begin it again, {_command(folder)}")
    _retire(folder, authority)
    certificate = server_certificate(folder)
    if not (issued(certificate, authority) and belongs(_server_key(folder), certificate)):
        certify(folder, settings, authority, key)
    replace_file(folder.ca_key, key_to_pem(key), secret=True)
    replace_file(folder.ca_certificate, certificate_to_pem(authority))
    folder.next_ca_bundles.unlink(missing_ok=True)
    folder.next_ca_key.unlink()  # last: with it, the change is not complete
    sync(folder.path)


def _retire(folder: ServerFolder, authority: x509.Certificate) -> None:
    """Copy the certificates that are not of the next authority, and their keys, to names of their own."""
    make_private_folder(folder.retired)
    old = [("ca", folder.ca_key, known) for known in authorities(folder) if known != authority]
    server = server_certificate(folder)
    if not issued(server, authority):
        old.append(("server", folder.key, server))
    for name, key_file, certificate in old:
        path = folder.retired / f"{name}-{certificate.fingerprint(SHA256()).hex()[:8]}.crt"
        key = key_file.read_bytes()
        if belongs(key_from_pem(key, key_file.name), certificate):  # otherwise it was copied before the interruption
            replace_file(path.with_suffix(".key"), key, secret=True)
        replace_file(path, certificate_to_pem(certificate))


@contextmanager
def _writing(folder: ServerFolder) -> Iterator[None]:
    """Say what a disk that refuses something leaves to be done; raises `FedoelError`."""
    try:
        yield
    except OSError as error:
        raise FedoelError(f"{error.filename or folder.path}: {error.strerror}; put it right and do it again") from error


def _next_key(folder: ServerFolder) -> Key:
    check_secret(folder.next_ca_key, "delete it and begin again")
    return key_from_pem(folder.next_ca_key.read_bytes(), folder.next_ca_key.name)


def _server_key(folder: ServerFolder) -> Key:
    return key_from_pem(folder.key.read_bytes(), folder.key.name)


def _of_key(folder: ServerFolder, key: Key) -> x509.Certificate | None:
    """Return the authority in `ca.crt` that a key belongs to."""
    return next((certificate for certificate in authorities(folder) if belongs(key, certificate)), None)


def _noted(folder: ServerFolder) -> set[int]:
    try:
        return set(json.loads(folder.next_ca_bundles.read_bytes()))
    except (OSError, ValueError, TypeError):  # then it counts as if no bundle had been written
        return set()


def _names(behind: Sequence[Enrolled]) -> str:
    few = ", ".join(device.name for device in behind[:5])
    return few if len(behind) <= 5 else f"{few} and {devices(len(behind) - 5)} more"


def _command(folder: ServerFolder, more: str = "") -> str:
    return f"fedoel server rotate {quote(str(folder.path))} --certificates{more}"
