"""Checks everything that a device needs before it can play, and says how to mend what fails."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

from cryptography import x509

from ...games.express import missing
from ...protocol.errors import FedoelError
from ...protocol.fleet.enrolment import check_address
from ...protocol.host.files import check_secret, exposed_among
from ...protocol.host.machine import installed_version
from .folder import DeviceFolder, joined, membership_of, private_paths
from .idle import free_memory
from .model import check_model
from .settings import read_settings

# From the first version that works, to before the first one that is not supported.
PYTHONS = ((3, 11), (3, 14))
FLOWERS = ((1, 41), (1, 43))
# Free megabytes that are needed, without a language model and with one.
MEMORY = {False: 300, True: 700}
DISK = {False: 100, True: 1000}
BACKENDS = {"llama.cpp": ("llama_cpp", "gguf", "jinja2"), "torch": ("torch", "transformers", "peft", "gguf")}
# Flower refuses a node whose clock is 5 s ahead of the server's or 305 s behind it. HTTP's dates are whole seconds.
AHEAD, BEHIND = 4.0, 300.0
SERVER_SOON, AUTHORITY_SOON = 30, 180  # days before a certificate ends from which on the owner is told
PATH = "/v1/fleet/"  # the only path that a reverse proxy has to forward
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was checked, whether it passed, what to do if it failed, and what to do soon."""

    what: str
    good: bool
    remedy: str = ""
    soon: str = ""

    def line(self) -> str:
        """Return the finding as one line of text."""
        if self.good and self.soon:
            return f"[soon] {self.what}: {self.soon}"
        return f"[ok]   {self.what}" if self.good else f"[FAIL] {self.what}: {self.remedy}"


def doctor(folder: DeviceFolder) -> int:
    """Print every finding; return 1 if a check failed."""
    failed = 0
    for finding in examine(folder):
        print(finding.line(), flush=True)
        failed += not finding.good
    print("this device is ready" if not failed else f"{failed} of these have to be put right first")
    return 1 if failed else 0


def examine(folder: DeviceFolder) -> Iterator[Finding]:
    """Check everything that a device needs, the machine first and the server last."""
    yield Finding("a 64-bit system", sys.maxsize > 2**32, "install a 64-bit system: numpy has no other wheels")
    running, remedy = sys.version_info[:2], "fedoel needs Python 3.11 to 3.13: make a new virtual environment with one"
    yield Finding(f"Python {running[0]}.{running[1]}", PYTHONS[0] <= running < PYTHONS[1], remedy)
    yield _flower()
    yield _checked("settings", lambda: read_settings(folder.settings) and "")
    yield _keys(folder)
    yield _rights(folder)
    yield _member(folder)
    model = _has_model(folder)
    yield _memory(model)
    yield _disk(folder.path, model)
    yield _model(folder)
    yield _express()
    if model:
        yield _backend()
    yield from _server(folder)


def _express() -> Finding:
    """Say whether TextWorldExpress can be played; a fleet may do without it."""
    lacking = missing()
    return Finding(f"no games of the family 'express': {lacking}" if lacking else "games of the family 'express'", True)


def _flower() -> Finding:
    remedy = "pip install 'fedoel[flower]'"
    if not (installed := installed_version("flwr")):
        return Finding("Flower", False, remedy)
    numbers = tuple(int(part) for part in installed.split(".")[:2])
    return Finding(f"Flower {installed}", FLOWERS[0] <= numbers < FLOWERS[1], remedy)


def _keys(folder: DeviceFolder) -> Finding:
    def check() -> str:
        for path in (folder.node_key, folder.identity):
            if not path.exists():
                return f"{path} is missing: run `fedoel device join {quote(str(folder.path))} --name NAME`"
        store_keys = [folder.store_key] if folder.store_key.exists() else []  # it is drawn before the first game
        for path in (folder.node_key, folder.identity, *store_keys):
            check_secret(path, "give this device new keys")
        return ""

    return _checked("keys that nobody else may read", check)


def _rights(folder: DeviceFolder) -> Finding:
    def check() -> str:
        keys = (folder.node_key, folder.identity, folder.store_key)  # they have a finding of their own
        found = [str(path) for path in exposed_among(private_paths(folder)) if path not in keys]
        return f"chmod go= {' '.join(found)}" if found else ""

    return _checked("folders and files that nobody else may read", check)


def _member(folder: DeviceFolder) -> Finding:
    def check() -> str:
        bundle, member = joined(folder), membership_of(folder)
        if bundle.identity and bundle.identity != member.identity.public.hex():
            return f"the bundle is for another device, {bundle.name!r}: join again with this device's own"
        if member.identity.public not in member.members:
            return "this device is no longer a member: ask whoever runs the server"
        return "" if bundle.server else "the bundle names no server"

    return _checked("a member of the fleet", check)


def _has_model(folder: DeviceFolder) -> bool:
    try:
        return bool(joined(folder).model)
    except FedoelError:
        return False


def _memory(model: bool) -> Finding:
    free, needed = free_memory(), MEMORY[model]
    if free is None:
        return Finding("memory (this system does not tell how much is free)", True)
    remedy = f"{needed} MB are needed: stop other programs, or add swap"
    return Finding(f"{free:.0f} MB of free memory", free >= needed, remedy)


def _disk(path: Path, model: bool) -> Finding:
    folder = next(folder for folder in (path, *path.parents) if folder.exists())
    free, needed = shutil.disk_usage(folder).free / 1e6, DISK[model]
    remedy = f"{needed} MB are needed in {folder}: make room, or choose another folder"
    return Finding(f"{free:.0f} MB of free disk", free >= needed and os.access(folder, os.W_OK), remedy)


def _model(folder: DeviceFolder) -> Finding:
    def check() -> str:
        check_model(folder)
        return ""

    what = "the fleet's base model" if _has_model(folder) else "no base model needed"
    return _checked(what, check)


def _backend() -> Finding:
    """Check that llama.cpp or torch is installed; which of the two is used, the run says."""
    installed = [name for name, modules in BACKENDS.items() if all(map(find_spec, modules))]
    remedy = "pip install 'fedoel[llama]' (pip compiles it), or fedoel[torch] where the run's policy.backend is torch"
    return Finding(f"{' and '.join(installed) or 'something'} to play the model with", bool(installed), remedy)


def _server(folder: DeviceFolder) -> Iterator[Finding]:
    """Connect to the server as a node does, and compare the clocks."""
    try:
        host, port = check_address(joined(folder).server)
        server = probe(host, port, folder.authority)
    except FedoelError as error:
        # Errors before the connection, such as a missing bundle, have a finding of their own.
        step = error.step if isinstance(error, ProbeError) else "reach the server"
        yield Finding(step, False, str(error))
        return
    yield Finding(
        f"reach {host}:{port}, with a certificate from the fleet's authority",
        True,
        soon=_ends("its certificate", server.ends, SERVER_SOON, "whoever runs the server has to renew it"),
    )
    last = x509.load_pem_x509_certificates(folder.authority.read_bytes())[-1].not_valid_after_utc.timestamp()
    remedy = "ask whoever runs the server for a bundle with the next authority, and join again"
    yield Finding("the fleet's authority", True, soon=_ends("its certificate", last, AUTHORITY_SOON, remedy))
    offset = server.offset
    direction = "ahead of" if offset > 0 else "behind"
    remedy = "set it: timedatectl set-ntp true; Flower ends without a word where clocks differ"
    yield Finding(f"the clock is {abs(offset):.0f} s {direction} the server's", -BEHIND < offset < AHEAD, remedy)


def _ends(what: str, end: float, soon: int, remedy: str) -> str:
    """Say that a certificate ends within `soon` days, and what to do; nothing if it is valid for longer."""
    days = int((end - time.time()) / 86_400)
    return f"{what} is valid for {days} days: {remedy}" if days < soon else ""


def _checked(what: str, check: Callable[[], object]) -> Finding:
    """Run a check that returns the remedy, or nothing if all is well; the text of an error is a remedy, too."""
    try:
        remedy = check()
    except (FedoelError, OSError) as error:
        remedy = str(error)
    return Finding(what, not remedy, str(remedy))


class ProbeError(FedoelError):
    """A step of the connection that failed.

    Parameters
    ----------
    step
        Which step.
    remedy
        What to do about it.
    """

    def __init__(self, step: str, remedy: str) -> None:
        super().__init__(remedy)
        self.step = step


@dataclass(frozen=True, slots=True)
class Server:
    """What a device sees of its server.

    Parameters
    ----------
    offset
        Seconds by which this machine's clock is ahead of the server's, accurate to a second.
    ends
        When the server's certificate ends, in seconds since the epoch.
    """

    offset: float
    ends: float


def probe(host: str, port: int, authority: Path) -> Server:
    """Read the server's clock and certificate over TLS, with the fleet's own certificate authority.

    Raises
    ------
    ProbeError
        If the server cannot be reached, or is not the fleet's.
    """
    address = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise ProbeError("the authority's certificate", f"{authority}: {error}; join again") from error
    connection = HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        connection.connect()
        certificate = connection.sock.getpeercert() or {}
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        sent = time.time()
        connection.request("GET", PATH)
        date = connection.getresponse().getheader("date")
        now = (sent + time.time()) / 2
    except ssl.SSLCertVerificationError as error:
        remedy = (
            f"{error.verify_message}: the server's certificate is not for {host}, has run out, or is not from "
            "the fleet's authority, of which there may be a new one: ask for a new bundle and its ca.crt; a clock that "
            "is far off looks the same"
        )
        raise ProbeError(f"the certificate of {address}", remedy) from error
    except ssl.SSLError as error:
        raise ProbeError(f"TLS with {address}", f"{error.reason}: it does not speak TLS; check the port") from error
    except socket.gaierror as error:
        raise ProbeError(f"the name {host}", f"{error.strerror}: check the network and the name") from error
    except (OSError, HTTPException) as error:
        remedy = f"{error or type(error).__name__}: check the network, the firewall, and that the server runs"
        raise ProbeError(f"reach {address}", remedy) from error
    finally:
        connection.close()
    if not date:
        raise ProbeError(f"the clock of {address}", "the server sends no date: let the reverse proxy pass it on")
    return Server(now - (parsedate_to_datetime(date).timestamp() + 0.5), ends)
