"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import FedoelError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, force it to the disk, and rename it into place.

    Raises
    ------
    FedoelError
        If the disk refuses it; what was there before stays.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise FedoelError(f"{path} cannot be written: {error.strerror}; make room and go on with --resume") from error
