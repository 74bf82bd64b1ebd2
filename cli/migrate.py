"""The verb ``migrate``: a folder of the release before, in today's formats."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..protocol.errors import ConfigError
from .flags import path

if TYPE_CHECKING:
    from ..protocol.host.migration import Step

HELP = "bring the folder of a run, a server or a device that an earlier release has made to today's formats"
EXAMPLES = ("/srv/fleet --dry-run", "runs/quick-0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("folder", type=path, metavar="FOLDER", help="folder of a run, of a fleet's server or a device")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be changed")


def run(arguments: argparse.Namespace) -> int:
    """Migrate a folder, or say what would be changed."""
    from ..protocol.host.migration import migrate

    folder = arguments.folder.absolute()
    locks, steps = _of_device(folder) or _of_server(folder)
    changes = migrate(locks, steps, arguments.dry_run)
    for change in changes:
        print(f"{'would change' if arguments.dry_run else 'changed'}  {change}")
    if not changes:
        print("there is nothing to migrate")
    return 0


Migration = tuple[Sequence[Path], "Callable[[], Iterable[Step]]"]


def _of_device(folder: Path) -> Migration | None:
    """Return the migration of a device's folder; None if it is none."""
    from ..client.device.folder import DeviceFolder
    from ..client.device.migrate import steps

    device = DeviceFolder(folder)
    if not device.settings.exists():
        return None
    return [device.process, device.keys_lock], lambda: steps(device)


def _of_server(folder: Path) -> Migration:
    """Return the migration of the folder of a server or a run.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    from ..server.migrate import locks_of_run, locks_of_server, steps_of_run, steps_of_server
    from ..server.operate.folder import SETTINGS, ServerFolder
    from ..server.run_folder import STORED
    from ..server.run_location import locate

    if (folder / SETTINGS).exists():
        server = ServerFolder(folder)
        return locks_of_server(server), lambda: steps_of_server(server)
    if (folder / STORED).exists():
        return locks_of_run(folder), lambda: steps_of_run(locate(folder))
    raise ConfigError(f"{folder} is no folder of a run, a server or a device: give one of these")
