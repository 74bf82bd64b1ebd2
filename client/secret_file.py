"""Files with keys: who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def exposed(path: Path) -> bool:
    """Whether others than a file's owner may read it; raises `OSError` if there is no file."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
