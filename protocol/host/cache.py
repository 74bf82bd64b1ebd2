"""The cache folder: compiled games and converted models, shared by all processes of a user."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ..config import RunConfig
from ..errors import ConfigError

REMEDY = "set FEDOEL_CACHE to a folder that only you can write"


def default_cache() -> Path:
    """Return ``$FEDOEL_CACHE``, or ``~/.cache/fedoel`` if it is not set.

    Service accounts and containers often have no home folder that can be written. Then it is ``fedoel`` in
    ``$XDG_CACHE_HOME``, or else a folder of the user's own in the folder for temporary files.

    Raises
    ------
    ConfigError
        If none of them can be used.
    """
    if chosen := os.environ.get("FEDOEL_CACHE"):
        return expanded(chosen)  # `~` is as it was written where no shell has read it, such as in a unit or a container
    candidates = list[Path]()
    with suppress(RuntimeError):  # there is no HOME, and the system does not know the user
        candidates.append(Path.home() / ".cache" / "fedoel")
    if base := os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(base) / "fedoel")
    return next(filter(_can_be_made, candidates), None) or _temporary()


def cache_folder(config: RunConfig) -> Path:
    """Return the cache folder of a run: the configured one, or else the user's default; raises as that does."""
    return expanded(config.cache) if config.cache else default_cache()


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~USER`` replaced by the home folder.

    Raises
    ------
    ConfigError
        If that user has no home folder here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: there is no such home folder; write the whole path") from error


def _can_be_made(folder: Path) -> bool:
    """Whether a folder exists, or can be made; not behind a folder that this user may not enter."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except PermissionError:
        return False
    return folder.is_dir() or (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK))


def _temporary() -> Path:
    """Return a folder of this user's own in the folder for temporary files, where everybody may make folders."""
    try:
        folder = Path(tempfile.gettempdir()) / f"fedoel-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise ConfigError(f"there is no home folder to keep games and models in ({error}): {REMEDY}") from error
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise ConfigError(f"{folder} is not yours alone, so that others could change what is kept there: {REMEDY}")
    return folder
