"""The cache folder: compiled games and converted models, shared by all processes of a user."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import RunConfig


def default_cache() -> Path:
    """Return ``$FEDOEL_CACHE``, or ``~/.cache/fedoel`` if it is not set."""
    return Path(os.environ.get("FEDOEL_CACHE") or Path.home() / ".cache" / "fedoel")


def cache_folder(config: RunConfig) -> Path:
    """Return the cache folder of a run: the configured one, or else the user's default."""
    return Path(config.cache).expanduser() if config.cache else default_cache()
