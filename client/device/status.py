"""What a device is and keeps, the end of its log, and how it is wiped."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from shlex import quote

from ...protocol.errors import ConfigError, FedoelError
from ...protocol.fleet.log import read_witness
from ...protocol.fleet.notice import kept_notice
from ...protocol.host.files import exposed_among
from ...protocol.host.lock import one_owner, owner
from .folder import DeviceFolder, joined, membership_of, open_store, private_paths
from .idle import games_today, look, why_not
from .last_version import last_version
from .record import DeviceRecord
from .settings import read_settings
from .success import fallen_back

SHOWN = 5  # refusals


def status(folder: DeviceFolder) -> int:
    """Print the device's name, service, conditions, version and store; return 0 if its service runs, else 1."""
    bundle, running = joined(folder), owner(folder.process)
    exposed = exposed_among(private_paths(folder))  # before the store is opened, which takes others' rights away
    print(f"device:  {bundle.name}, number {bundle.number} of the fleet at {bundle.server}")
    print(f"service: {f'runs as {running}' if running else 'does not run'}")
    if notice := kept_notice(folder.notice):
        print(f"notice:  {'THE FLEET IS STOPPED, and nothing is played or sent: ' * notice.stop}{notice}")
    print(f"plays:   {_plays(folder)}")
    print(f"version: {_version(folder)}")
    print(f"store:   {_stored(folder)}")
    print(f"log:     {_log(folder)}")
    for line in _trusts(folder):
        print(line)
    for path in exposed:
        print(f"rights:  others may read {path}: chmod go= it; if it is a key, give this device new keys if they did")
    return 0 if running else 1


def logs(folder: DeviceFolder, count: int) -> int:
    """Print the end of the SuperNode's log."""
    if not folder.log.exists():
        raise ConfigError(f"{folder.log} is not there: the device has not been started yet")
    lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    print("\n".join(lines[-count:]))
    return 0


def wipe(folder: DeviceFolder, store_only: bool = False, sure: bool = False) -> int:
    """Delete the device's files, keys first: without its key, the store cannot be read. Asks first, unless `sure`."""
    if not folder.settings.exists() and not folder.identity.exists():
        raise ConfigError(f"{folder.path} is no device's folder: nothing was deleted")
    with one_owner(folder.process, "runs this device: stop it first"):
        return _wipe(folder, store_only, sure)


def _wipe(folder: DeviceFolder, store_only: bool, sure: bool) -> int:
    paths = [path for path in _contents(folder, store_only) if path.exists()]
    if not sure:
        print("this deletes, for good:", *(f"  {path}" for path in paths), sep="\n")
        if not sys.stdin.isatty() or input("type the folder's name to go on: ").strip() != folder.path.name:
            raise ConfigError("nothing was deleted; say --yes to delete it")
    for path in paths:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise FedoelError(f"{path} cannot be deleted: {error.strerror}; delete it yourself") from error
    print(f"deleted {len(paths)} files and folders of {folder.path}")
    if not store_only:
        print("whoever runs the server should revoke this device, too")
        if folder.record.exists():
            print(f"kept: {folder.record}, since what this device has spent counts in its next fleet, too")
    return 0


def _contents(folder: DeviceFolder, store_only: bool) -> list[Path]:
    """Return the files and folders to delete, in this order."""
    journals = [folder.store.with_name(f"{folder.store.name}{end}") for end in ("", "-journal", "-wal", "-shm")]
    store = [folder.store_key, *journals]
    if store_only:
        return store
    rest = (
        folder.identity.parent, folder.versions, folder.fleet, folder.authority, folder.cache, folder.flower,
        folder.played, folder.success, folder.working, folder.path / "server", folder.settings,
        folder.process, folder.keys_lock,
    )  # fmt: skip
    return [*store, *rest, *folder.path.glob("*.pub"), *folder.path.glob(f"{folder.log.name}*")]


def _plays(folder: DeviceFolder) -> str:
    settings, now = read_settings(folder.settings), look()
    played = games_today(folder.played, f"{now.clock:%Y-%m-%d}")
    reason = why_not(settings.play, settings.limits.memory, now, played, 1)
    when = f"not now, since {reason}" if reason else "now, if it is asked"
    every = settings.play.answer_every
    return f"{when}; {played} games today{f'; answers leave at multiples of {every} s' if every else ''}"


def _trusts(folder: DeviceFolder) -> Iterator[str]:
    """Say what the device answers, what it has spent, and what it has refused."""
    trust, record = read_settings(folder.settings).trust, DeviceRecord(folder.record)
    yield from (f"{'trust:' * (number == 0):9}{sentence}" for number, sentence in enumerate(trust.words()))
    spent = record.epsilon(trust.delta)
    told = f"{spent:.3g} at delta {trust.delta:g}" if spent < math.inf else "without a bound, since a sum had no noise"
    yield f"epsilon: {told}, in the last 365 days"
    counts, last = record.refusals()
    if counts:
        yield f"refused: {', '.join(f'{code} {count}' for code, count in counts.items())}"
    for refusal in last[:SHOWN]:
        yield f"         {datetime.fromtimestamp(refusal.at):%Y-%m-%d %H:%M} {refusal.code}: {refusal.sentence}"


def _version(folder: DeviceFolder) -> str:
    try:
        left = fallen_back(folder)
        _, request = last_version(folder.versions, membership_of(folder).fleet_key, before=bool(left))
        why = f", since {left} is clearly worse here" if left else ""
        command = f"fedoel play --device {quote(str(folder.path))}"
        return f"{request.spec.policy_version}, of cycle {request.cycle}{why}; {command}"
    except FedoelError as error:
        return str(error)


def _log(folder: DeviceFolder) -> str:
    """Say which head of the fleet's log this device has seen, for people to compare."""
    head = read_witness(folder.log_head).head
    if head is None:
        return "none seen yet"
    entries = "1 entry" if head.size == 1 else f"{head.size} entries"
    return f"{entries}, head {head}; the server checks it: fedoel server log verify DIR HEAD"


def _stored(folder: DeviceFolder) -> str:
    if not folder.store.exists():
        return "empty"
    contents = open_store(folder).read()
    return f"{len(contents.rows)} episodes, {len(contents.damaged)} damaged, {folder.store.stat().st_size / 1e6:.1f} MB"
