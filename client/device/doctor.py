"""Everything that has to hold before a device can play, each with what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ...policies.model_files import find_model, model_digest
from ...protocol.errors import FedoelError
from ...protocol.fleet.enrolment import check_address
from ...protocol.host.secret_file import check_secret
from .folder import DeviceFolder, joined, membership_of
from .idle import free_memory
from .probe import ProbeError, probe
from .settings import read_settings

PYTHONS = ((3, 11), (3, 14))
FLOWERS = ((1, 41), (1, 43))
MEGABYTES = {False: 300, True: 700}  # of memory, without a language model and with one
DISK = {False: 100, True: 1000}
PLAYERS = {"llama.cpp": ("llama_cpp", "gguf", "jinja2"), "torch": ("torch", "transformers", "peft", "gguf")}
# Flower refuses a node whose clock is 5 s ahead of the server's or 305 s behind it; a date in HTTP is whole seconds.
AHEAD, BEHIND = 4.0, 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, whether it is all right, and what to do if it is not."""

    what: str
    good: bool
    remedy: str = ""

    def line(self) -> str:
        """Return it for a person to read."""
        return f"[ok]   {self.what}" if self.good else f"[FAIL] {self.what}: {self.remedy}"


def doctor(folder: DeviceFolder) -> int:
    """Look at everything, say it, and exit with 1 if anything is wrong."""
    failed = 0
    for finding in examine(folder):
        print(finding.line(), flush=True)
        failed += not finding.good
    print("this device is ready" if not failed else f"{failed} of these have to be put right first")
    return 1 if failed else 0


def examine(folder: DeviceFolder) -> Iterator[Finding]:
    """Look at everything that a device needs, the machine first."""
    yield _machine()
    yield _python()
    yield _flower()
    yield _settings(folder)
    yield _keys(folder)
    yield _member(folder)
    model = _has_model(folder)
    yield _memory(model)
    yield _disk(folder.path, model)
    yield _model(folder)
    if model:
        yield _player()
    yield from _server(folder)


def _machine() -> Finding:
    return Finding(
        "a 64-bit system", sys.maxsize > 2**32, "install a 64-bit operating system: numpy has no other wheels"
    )


def _python() -> Finding:
    here = sys.version_info[:2]
    remedy = "fedoel needs Python 3.11 to 3.13: make a new virtual environment with one"
    return Finding(f"Python {here[0]}.{here[1]}", PYTHONS[0] <= here < PYTHONS[1], remedy)


def _flower() -> Finding:
    remedy = "pip install 'fedoel[flower]'"
    try:
        found = version("flwr")
    except PackageNotFoundError:
        return Finding("Flower", False, remedy)
    numbers = tuple(int(part) for part in found.split(".")[:2])
    return Finding(f"Flower {found}", FLOWERS[0] <= numbers < FLOWERS[1], remedy)


def _settings(folder: DeviceFolder) -> Finding:
    return _tried("settings", lambda: read_settings(folder.settings) and "")


def _keys(folder: DeviceFolder) -> Finding:
    def look() -> str:
        for path in (folder.node_key, folder.identity):
            if not path.exists():
                return f"{path} is missing: run `fedoel device join {folder.path} --name NAME`"
        made = [folder.store_key] if folder.store_key.exists() else []  # with the first game
        for path in (folder.node_key, folder.identity, *made):
            check_secret(path, "give this device new keys")
        return ""

    return _tried("keys that nobody else may read", look)


def _member(folder: DeviceFolder) -> Finding:
    def look() -> str:
        bundle, member = joined(folder), membership_of(folder)
        if member.identity.public not in member.members:
            return "this device is no longer a member: ask whoever runs the server"
        return "" if bundle.server else "the bundle names no server"

    return _tried("a member of the fleet", look)


def _has_model(folder: DeviceFolder) -> bool:
    try:
        return bool(joined(folder).model)
    except FedoelError:
        return False


def _memory(model: bool) -> Finding:
    free, wanted = free_memory(), MEGABYTES[model]
    if free is None:
        return Finding("memory (this system does not tell how much is free)", True)
    remedy = f"{wanted} MB are needed: stop other programs, or add swap"
    return Finding(f"{free:.0f} MB of free memory", free >= wanted, remedy)


def _disk(path: Path, model: bool) -> Finding:
    place = path if path.exists() else Path.home()
    free, wanted = shutil.disk_usage(place).free / 1e6, DISK[model]
    remedy = f"{wanted} MB are needed in {place}: make room, or choose another folder"
    return Finding(f"{free:.0f} MB of free disk", free >= wanted and os.access(place, os.W_OK), remedy)


def _model(folder: DeviceFolder) -> Finding:
    def look() -> str:
        wanted = joined(folder).model
        if not wanted:
            return ""
        found = find_model(read_settings(folder.settings).model.file)
        if model_digest(found) == wanted:
            return ""
        return f"{found} is another model: put the file with SHA-256 {wanted} here, and name it in {folder.settings}"

    what = "the fleet's base model" if _has_model(folder) else "no base model needed"
    return _tried(what, look)


def _player() -> Finding:
    """Look for what plays with a model: the run names llama.cpp or torch, and either can be there."""
    there = [name for name, needs in PLAYERS.items() if all(find_spec(need) for need in needs)]
    remedy = "pip install 'fedoel[llama]' (pip compiles it), or fedoel[torch] where the run's policy.backend is torch"
    return Finding(f"{' and '.join(there) or 'something'} to play the model with", bool(there), remedy)


def _server(folder: DeviceFolder) -> Iterator[Finding]:
    """Reach the server as a node does, and compare clocks."""
    try:
        host, port = check_address(joined(folder).server)
        offset = probe(host, port, folder.authority)
    except FedoelError as error:
        # What is wrong before the network was said above.
        step = error.step if isinstance(error, ProbeError) else "reach the server"
        yield Finding(step, False, str(error))
        return
    yield Finding(f"reach {host}:{port}, with a certificate from the fleet's authority", True)
    way = "ahead of" if offset > 0 else "behind"
    remedy = "set it: timedatectl set-ntp true; Flower ends without a word where clocks differ"
    yield Finding(f"the clock is {abs(offset):.0f} s {way} the server's", -BEHIND < offset < AHEAD, remedy)


def _tried(what: str, look: Callable[[], object]) -> Finding:
    """Look at something; what it returns is what to do, and its errors say so themselves."""
    try:
        remedy = look()
    except (FedoelError, OSError) as error:
        remedy = str(error)
    return Finding(what, not remedy, str(remedy))
