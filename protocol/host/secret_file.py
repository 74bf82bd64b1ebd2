"""Files with private keys: how they are written, and who may read them."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigError
from .files import make_folder, replace_file, sync


def exposed(path: Path) -> bool:
    """Whether anybody but its owner may read a file; raises `OSError` if there is no file."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def check_secret(path: Path, otherwise: str) -> None:
    """Check that only its owner has access to a key's file.

    Parameters
    ----------
    path
        The file.
    otherwise
        What to do if they have, as the error says it.

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
    """Replace a file that only its owner may read; raises `OSError` if the disk refuses it."""
    replace_file(path, text, secret=True)


def create_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, unless it exists already; raises `OSError` if the disk refuses it.

    Of two processes that do this at once, one succeeds, and the other leaves the file as it is.
    """
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        write_secret(draft, text)
        with suppress(FileExistsError):
            os.link(draft, path)
    sync(path.parent)
