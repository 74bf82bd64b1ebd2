"""How well a device did with its last two versions, in a file of its folder, and which version its owner plays."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ...protocol.host.files import replace_file
from ..fallback import Success
from .folder import DeviceFolder
from .last_version import BEFORE, LAST, version_at


def read_success(path: Path) -> Success:
    """Read results; none if the file is missing or damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return Success()
    return Success.from_values(values) if isinstance(values, dict) else Success()


def write_success(path: Path, success: Success) -> None:
    """Write results, readable by the file's owner only. If the disk refuses them, the device answers nonetheless."""
    with suppress(OSError):
        replace_file(path, json.dumps(success.to_values()), secret=True)


def fallen_back(folder: DeviceFolder) -> str:
    """Return the last version, if the device has gone back from it to the version that it keeps; empty otherwise."""
    success, last = read_success(folder.success), version_at(folder.versions / LAST)
    if not last or not success.fell_back_from(last):
        return ""
    return last if version_at(folder.versions / BEFORE) == success.versions[0].version else ""


def owners_version(folder: DeviceFolder) -> str:
    """Return the version that the device has for its owner; empty if there is none."""
    return version_at(folder.versions / (BEFORE if fallen_back(folder) else LAST))
