"""The verb ``prune``: weights of versions that nothing needs are removed."""

from __future__ import annotations

import argparse

from ..protocol.errors import ConfigError
from .flags import whole_number
from .version_text import add_folder, located

HELP = "remove weights of old versions; manifests stay, and everything that the chain, the run or an operator needs"
EXAMPLES = ("/srv/fleet --keep 5 --dry-run", "/srv/fleet --checkpoints")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    parser.add_argument(
        "--keep",
        type=whole_number,
        default=5,
        metavar="N",
        help="versions before the current one (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoints",
        action="store_true",
        help="also the weights that ended cycles have trained: what is removed then does not come back",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(arguments: argparse.Namespace) -> int:
    """Remove weights, or say which ones nothing needs."""
    from ..server.pruning import old_checkpoints, removable, remove
    from ..server.version_list import VersionList

    if arguments.keep < 0:
        raise ConfigError(f"--keep must be at least 0, not {arguments.keep}")
    place = located(arguments)
    versions = VersionList(place)
    names = removable(versions, arguments.keep, arguments.checkpoints)
    paths = old_checkpoints(versions, arguments.keep) if arguments.checkpoints else None
    if not names and not paths:
        print(f"nothing to remove: of the versions that have weights here, each is needed with --keep {arguments.keep}")
        return 0
    does = "would remove" if arguments.dry_run else "removes"
    for name in names:
        print(f"{does} the weights of {name}")
    for path in paths or ():
        print(f"{does} {path.relative_to(place.run)}")
    if not arguments.dry_run:
        print(f"{remove(place, names, arguments.keep, paths):,} bytes freed")
    return 0
