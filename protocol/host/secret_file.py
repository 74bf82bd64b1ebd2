"""Files with keys: who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ConfigError


def exposed(path: Path) -> bool:
    """Whether others than a file's owner may read it; raises `OSError` if there is no file."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def check_secret(path: Path, otherwise: str) -> None:
    """Refuse a key that others may have read.

    Parameters
    ----------
    otherwise
        What to do if they have.

    Raises
    ------
    ConfigError
        If its file's mode is too open.
    OSError
        If there is no file.
    """
    if exposed(path):
        raise ConfigError(f"others may read {path}: chmod 600 it, and {otherwise} if they did")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on; raises `OSError` if the disk refuses it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o600)  # a file that was there before keeps its mode
