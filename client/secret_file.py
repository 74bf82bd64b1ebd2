"""Files with keys: who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def exposed(path: Path) -> bool:
    """Whether others than a file's owner may read it; raises `OSError` if there is no file."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on; raises `OSError` if the disk refuses it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o600)  # a file that was there before keeps its mode
