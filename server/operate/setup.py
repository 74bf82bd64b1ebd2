"""Making a fleet, enrolling devices and revoking them: the fleet's keys and members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from types import MappingProxyType

import tomli_w

from ...policies.model_files import find_model, model_digest
from ...protocol.config import RunConfig, Scalar
from ...protocol.errors import ConfigError, EnrolmentError
from ...protocol.fleet.enrolment import Bundle, card_from_text, check_address, sign_bundle, to_text
from ...protocol.fleet.log import KEY
from ...protocol.fleet.membership import FLEET_KEY, MEMBERS, load_members
from ...protocol.fleet.succession import Succession
from ...protocol.host.files import check_place, check_secret, make_private_folder, replace_file, write_whole
from ...protocol.host.lock import in_turn
from ...protocol.prompt_pack import PromptPack, write_pack
from ...protocol.settings import nested
from ..fleet import make_owner, newest_log, publish_members
from ..log import FleetLog
from .authority import certify, issuer, note_bundle, of_bundles
from .certificates import certificate_to_pem, check_clock, key_to_pem, make_authority, make_key
from .folder import SETTINGS, ServerFolder, Settings, read_run, read_settings, write_settings
from .proposal import proposal
from .roll import Enrolled, Roll, devices, read_roll, write_roll

HEAD = """\
# The run of `fedoel server start`. All settings of docs/reference.md are allowed. `clients` is set to the number of
# enrolled devices when the run begins. `policy.backend` "tactics" has no language model; "torch" distils into SmolLM2.
# For `strategy.patience` seconds (a week), devices that are not ready are asked again.
"""
PACK = """\
# `server.prompts` is a pack of prompts of `games.families`. Whoever changes the families makes another pack:
#   fedoel prompts make FAMILIES --out FILE
"""
RUN: Mapping[str, Scalar] = MappingProxyType({
    "name": "fleet", "cycles": 3,
    "games.families": "frozen-lake size=3 turns=6; sokoban turns=5", "games.per-client": 6,
    "policy.backend": "tactics",
    "strategy.name": "secure-mean", "strategy.min-available-nodes": 3, "strategy.patience": 604800.0,
    "server.public": "prompts", "server.pack": 480, "server.prompts-per-cycle": 240,
    "trial.health": True,
})  # fmt: skip

MakePack = Callable[[RunConfig], PromptPack]


def init(
    folder: ServerFolder,
    settings: Settings,
    given: Mapping[str, Scalar] = MappingProxyType({}),
    make_pack: MakePack | None = None,
) -> int:
    """Make a server's folder; in an existing one, renew the server's certificate only.

    Parameters
    ----------
    given
        Settings for `run.toml` beside those of `RUN`, or instead of them.
    make_pack
        Makes the pack of prompts of a run that needs one and names none. Without it, `run.toml` names none.

    Raises
    ------
    ConfigError
        If the folder holds something else, or cannot be written; if a setting is unknown or invalid; or if settings are
        given for a folder that has its `run.toml` already.
    """
    check_address(settings.address)
    check_address(settings.listen)
    check_clock()
    new = not folder.ca_key.exists()
    before, settings = _address_before(folder), _as_before(folder, settings)
    check_place(folder.path, "the server's folder")
    if new and folder.path.exists() and any(folder.path.iterdir()) and not _is_begun(folder):
        raise ConfigError(f"{folder.path} is not empty and not a server's folder: choose an empty folder")
    ended = not new and not (folder.path / SETTINGS).exists()  # by a crash or a full disk, before it was done
    if given and not new and not ended:
        raise ConfigError(f"the fleet's run has its settings already: change them in {folder.run_file}")
    run = {**RUN, **given}
    config = RunConfig.from_flat(run)
    pack = make_pack(config) if make_pack and new and config.server.lacks_pack else None
    try:
        make_private_folder(folder.path)
        with in_turn(folder.roll_lock):
            if new and not folder.ca_key.exists():  # another process may have made it meanwhile
                _make_fleet(folder, run, pack)
            elif given and ended:
                _write_run(folder, run, config.server.lacks_pack and folder.first_pack.exists())
            make_private_folder(folder.fleet)
            certify(folder, settings, *issuer(folder))
            write_settings(folder, settings)
    except OSError as error:
        raise ConfigError(f"{folder.path} cannot be written: {error.strerror}; choose another folder") from error
    print(f"{'made' if new else 'renewed the certificate in'} {folder.path}")
    if pack:
        prompts, families = len(pack.prompts), ", ".join(pack.families)
        print(f"the server has no games, but {prompts} prompts of {families}: {folder.first_pack}")
    print(f"devices reach the server at {settings.address}; the SuperLink listens on {settings.listen}")
    if before:  # not in a folder whose making was interrupted
        print("if the server runs, stop it and start it again: it reads its certificate and settings when it starts")
        if before != settings.address:
            again = f"fedoel server enroll {quote(str(folder.path))} DEVICE.pub"
            print(f"devices that have joined look for it at {before}: write their bundles again with {again}")
        return 0
    print(f"edit {folder.run_file}, then enrol devices: fedoel server enroll {quote(str(folder.path))} DEVICE.pub")
    return 0


def enroll(folder: ServerFolder, card_file: Path, name: str = "", out: Path | None = None) -> int:
    """Enrol a device, and write the bundle with which it joins.

    Parameters
    ----------
    card_file
        The ``.pub`` file that the device has made.
    name
        Name of the device in the fleet; by default the one on its card.
    out
        File of the bundle; by default ``NAME.fleet`` in the working folder.
    """
    settings = read_settings(folder)
    try:
        card = card_from_text(card_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(f"{card_file} cannot be read: give the .pub file that the device made") from error
    with in_turn(folder.roll_lock):
        before = read_roll(folder.roll)
        roll, device = before.enrol(card, name)
        _publish(folder, roll)  # first, so that a repeated command does what an interrupted one has left
        if len(roll.devices) > len(before.devices):
            write_roll(folder.roll, roll)
        _update_superlink(folder, settings, roll)
        bundle = _bundle(folder, settings, device)
        out = out or Path(f"{device.name}.fleet")
        write_whole(out, to_text(bundle).encode())
        note_bundle(folder, device.number)
    print(f"{device.name} is device {device.number} of {len(roll.active)}; copy {out} to it and run there:")
    print(f"  fedoel device join DIR --bundle {quote(out.name)}")
    print(f"the device must have printed the fingerprint {card.fingerprint}, and will print the fleet's:")
    print(f"  {bundle.fingerprint}")
    return 0


def revoke(folder: ServerFolder, name: str) -> int:
    """Revoke a device: it is not a member from the next round on, and the SuperLink rejects its connections."""
    settings = read_settings(folder)
    with in_turn(folder.roll_lock):
        current = read_roll(folder.roll)
        roll = current.revoke(name)
        _publish(folder, roll)
        running = _update_superlink(folder, settings, roll)
        write_roll(folder.roll, roll)
    print(f"revoked {name}; left: {devices(len(roll.active))}")
    print("the SuperLink now rejects it" if running else "the SuperLink is not running; it will reject the device")
    return 0


def _publish(folder: ServerFolder, roll: Roll) -> None:
    """Sign the list of the members on a roll, unless it is the present one."""
    if load_members(folder.fleet)[0].identities != frozenset(roll.identities):
        publish_members(folder.fleet, roll.identities)


def _update_superlink(folder: ServerFolder, settings: Settings, roll: Roll) -> bool:
    """Register the fleet's members with the SuperLink if it runs, and return whether it does.

    `start` registers them again whenever it starts the SuperLink.
    """
    from .flower import Fleet

    fleet = Fleet(folder, settings)
    if running := fleet.running():
        fleet.register(roll)
    return running


def _address_before(folder: ServerFolder) -> str:
    """Return the address that devices have been given; empty if the folder is new or its settings are damaged."""
    try:
        return read_settings(folder).address
    except ConfigError:
        return ""


def _as_before(folder: ServerFolder, settings: Settings) -> Settings:
    """Return the settings with what the folder's owner has written into `server.toml` and no command asks for."""
    try:
        return replace(settings, reconnect=read_settings(folder).reconnect)
    except ConfigError:
        return settings


def _is_begun(folder: ServerFolder) -> bool:
    """Whether a folder holds nothing but what is left of an `init` that a crash or a full disk has ended."""
    own = (
        folder.roll_lock, folder.fleet, folder.ca_certificate, folder.first_pack, folder.run_file, folder.ca_key,
    )  # fmt: skip
    names = {path.name for path in own}
    return folder.roll_lock.exists() and all(path.name.removesuffix(".part") in names for path in folder.path.iterdir())


def _make_fleet(folder: ServerFolder, run: Mapping[str, Scalar], pack: PromptPack | None) -> None:
    """Make the certificate authority, the owner's key pair, an empty list of members, and the run that is to start."""
    key = make_key()
    make_owner(folder.fleet)
    write_whole(folder.ca_certificate, certificate_to_pem(make_authority(key)))
    if pack:
        write_pack(folder.first_pack, pack)
    _write_run(folder, run, bool(pack))
    replace_file(folder.ca_key, key_to_pem(key), secret=True)  # last: its presence marks a complete folder


def _write_run(folder: ServerFolder, run: Mapping[str, Scalar], packed: bool) -> None:
    """Write `run.toml`; it names the folder's pack if there is one."""
    run = {**run, "server.prompts": folder.first_pack.name} if packed else run
    write_whole(folder.run_file, (HEAD + PACK * packed + tomli_w.dumps(nested(run))).encode())


def _bundle(folder: ServerFolder, settings: Settings, device: Enrolled) -> Bundle:
    try:
        check_secret(folder.ca_key, "make a new fleet")
        plain = Bundle(
            device.name, device.number, settings.address, of_bundles(folder),
            (folder.fleet / FLEET_KEY).read_text(encoding="ascii"),
            (folder.fleet / MEMBERS).read_text(encoding="ascii"), _model(folder),
            identity=device.identity, trust=proposal(read_run(folder)), log=str(newest_log(folder.fleet).heads[-1]),
            succession=" ".join(str(Succession.of_entry(one.values)) for one in FleetLog(folder.fleet).of_kind(KEY)),
        )  # fmt: skip
        return sign_bundle(issuer(folder)[1], plain)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: restore it from a copy") from error


def _model(folder: ServerFolder) -> str:
    """Return the digest of the run's base model; empty for a run without one."""
    policy = read_run(folder).policy
    return "" if policy.backend == "tactics" else model_digest(find_model(policy.base))
