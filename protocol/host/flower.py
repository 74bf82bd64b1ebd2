"""What fedoel replaces in Flower's own processes."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import FedoelError
from .files import replace_file

# Not as `-m`: every process that is forked for it would run that module again, and import what it imports.
SUPEREXEC = "from fedoel.protocol.host.superexec import main; main()"
Commands = Mapping[str, Sequence[str] | str]  # a command or a module's name, by the name of a command of Flower's


def put_in_place(module: ModuleType, name: str, replacement: object) -> None:
    """Replace a name of one of Flower's modules in this process.

    Raises
    ------
    FedoelError
        If this release of Flower has no such name: the process must not go on without what was to take its place.
    """
    if not hasattr(module, name):
        raise FedoelError(f"this release of Flower has no {module.__name__}.{name}: install the one that fedoel needs")
    setattr(module, name, replacement)


def superexec_command(commands: Commands, address: str, secret: Path, authority: Path | None = None) -> list[str]:
    """Return the command of a SuperExec that takes tasks from a SuperLink or SuperNode on this machine.

    Parameters
    ----------
    commands
        As for `fedoel.protocol.host.superexec`.
    address
        Of its runtime API.
    secret
        File for the secret by which the runtime API knows its SuperExec. It is made here: call this before the
        SuperLink or SuperNode is started with the same file.
    authority
        The certificate authority of the API; None for a connection without TLS, on the loopback interface.
    """
    replace_file(secret, secrets.token_bytes(32), secret=True)
    tls = ["--insecure"] if authority is None else ["--root-certificates", str(authority)]
    return [
        sys.executable, "-P", "-c", SUPEREXEC, json.dumps(dict(commands)), *tls,
        "--runtime-api-address", address, "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
