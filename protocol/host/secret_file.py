"""Files with private keys: permissions, and writing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ConfigError


def exposed(path: Path) -> bool:
    """Return whether users other than the owner have access to a file; raise `OSError` if there is no file."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def check_secret(path: Path, otherwise: str) -> None:
    """Check that only its owner has access to a key's file.

    Parameters
    ----------
    path
        The file.
    otherwise
        What to do if others have read the key; part of the error message.

    Raises
    ------
    ConfigError
        If others have access.
    OSError
        If there is no file.
    """
    if exposed(path):
        raise ConfigError(f"others may read {path}: chmod 600 it, and {otherwise} if they did")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may ever read; raise `OSError` if it cannot be written."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o600)  # an existing file keeps its mode when it is opened
