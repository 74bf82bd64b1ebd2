"""Making a fleet, enrolling devices and revoking them: a fleet's keys, and who belongs to it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from ...policies.model_files import find_model, model_digest
from ...protocol.errors import ConfigError, EnrolmentError
from ...protocol.fleet.enrolment import Bundle, bundle_to_text, card_from_text, check_address, sign_bundle
from ...protocol.fleet.membership import FLEET_KEY, MEMBERS
from ...protocol.host.files import write_whole
from ...protocol.host.secret_file import check_secret, write_secret
from ..fleet import make_owner, publish_members
from .certificates import (
    certificate_to_pem,
    key_from_pem,
    key_to_pem,
    make_authority,
    make_key,
    make_server_certificate,
)
from .folder import ServerFolder, Settings, read_settings, write_settings
from .roll import Enrolled, Roll, read_roll, write_roll
from .run_file import read_run

RUN = """\
# What `fedoel server start` runs. Every setting of docs/reference.md can stand here; `clients` is set when the run
# begins, to the number of devices that are enrolled then.
name = "fleet"
cycles = 3

[games]
families = "frozen-lake size=3 turns=6; sokoban turns=5"
per-client = 6

[policy]
backend = "tactics"  # no language model; `torch` distils into SmolLM2

[strategy]
name = "secure-mean"
min-available-nodes = 3
patience = 604800.0  # devices that do not play now are asked again for a week
"""


def init(folder: ServerFolder, settings: Settings) -> int:
    """Make a server's folder; in one that is there already, only the server's certificate is made anew."""
    check_address(settings.address)
    check_address(settings.listen)
    new = not folder.ca_key.exists()
    if new and folder.path.exists() and any(folder.path.iterdir()):
        raise ConfigError(f"{folder.path} is in use by something else: choose an empty folder")
    try:
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if new:
            _make_fleet(folder)
        _certify(folder, settings)
        write_settings(folder, settings)
    except OSError as error:
        raise ConfigError(f"{folder.path} cannot be written: {error.strerror}; choose another folder") from error
    print(f"{'made' if new else 'renewed the certificate in'} {folder.path}")
    print(f"devices reach the server at {settings.address}; the SuperLink listens on {settings.listen}")
    print(f"edit {folder.run_file}, then enrol devices: fedoel server enroll {folder.path} DEVICE.pub")
    return 0


def enroll(folder: ServerFolder, card_file: Path, name: str = "", out: Path | None = None) -> int:
    """Add a device to the fleet, and write the bundle to hand back to it.

    Parameters
    ----------
    card_file
        What the device has written to join.
    name
        What the fleet calls the device, by default what it calls itself.
    out
        The bundle, by default ``NAME.fleet`` in the working folder.
    """
    settings = read_settings(folder)
    try:
        card = card_from_text(card_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(f"{card_file} cannot be read: give the .pub file that a device has made") from error
    roll, device = read_roll(folder.roll).enrol(card, name)
    known = len(roll.devices) == len(read_roll(folder.roll).devices)
    if not known:
        write_roll(folder.roll, roll)
        publish_members(folder.fleet, roll.identities)
        _tell(folder, settings, roll)
    text = bundle_to_text(_bundle(folder, settings, device))
    out = out or Path(f"{device.name}.fleet")
    write_whole(out, text.encode())
    print(f"{device.name} is device {device.number} of {len(roll.active)}; hand {out} back to it:")
    print(f"  fedoel device join DIR --bundle {out.name}")
    return 0


def revoke(folder: ServerFolder, name: str) -> int:
    """Remove a device: it is no member from the next round on, and the SuperLink does not let it in."""
    settings = read_settings(folder)
    before = read_roll(folder.roll)
    device, roll = before.named(name), before.revoke(name)
    write_roll(folder.roll, roll)
    publish_members(folder.fleet, roll.identities)
    running = _tell(folder, settings, roll)
    print(f"revoked {device.name}; {len(roll.active)} devices are left")
    print("the SuperLink has shut it out" if running else "the SuperLink is not running; it will not let it in")
    return 0


def _tell(folder: ServerFolder, settings: Settings, roll: Roll) -> bool:
    """Tell the SuperLink who belongs to the fleet now, if it runs; when it starts, it is told anyway."""
    from .flower import Fleet

    fleet = Fleet(folder, settings)
    if running := fleet.running():
        fleet.register(roll)
    return running


def _make_fleet(folder: ServerFolder) -> None:
    """Make what a fleet has for life: the authority, the fleet's own key, and an empty list of members."""
    key = make_key()
    make_owner(folder.fleet)
    write_whole(folder.ca_certificate, certificate_to_pem(make_authority(key)))
    if not folder.run_file.exists():
        write_whole(folder.run_file, RUN.encode())
    write_secret(folder.ca_key, key_to_pem(key))  # last: with it, the folder is a fleet's


def _certify(folder: ServerFolder, settings: Settings) -> None:
    authority = x509.load_pem_x509_certificate(folder.ca_certificate.read_bytes())
    key = make_key()
    certificate = make_server_certificate(settings.hosts, key, authority, key_from_pem(folder.ca_key.read_bytes()))
    write_secret(folder.key, key_to_pem(key))
    write_whole(folder.certificate, certificate_to_pem(certificate))


def _bundle(folder: ServerFolder, settings: Settings, device: Enrolled) -> Bundle:
    try:
        check_secret(folder.ca_key, "make a new fleet")
        plain = Bundle(
            device.name, device.number, settings.address, folder.ca_certificate.read_text(encoding="ascii"),
            (folder.fleet / FLEET_KEY).read_text(encoding="ascii"),
            (folder.fleet / MEMBERS).read_text(encoding="ascii"), _model(folder),
        )  # fmt: skip
        return sign_bundle(key_from_pem(folder.ca_key.read_bytes()), plain)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: put back a copy of it") from error


def _model(folder: ServerFolder) -> str:
    """Digest of the model that the fleet's run plays with; nothing where it plays without one."""
    policy = read_run(folder).policy
    return "" if policy.backend == "tactics" else model_digest(find_model(policy.base))
