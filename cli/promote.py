"""The verb ``promote``: any version of a run becomes current."""

from __future__ import annotations

import argparse

from .version_text import add_folder, add_version, located, print_current

HELP = "make a version current whatever the gate said, also a candidate that it refused"
EXAMPLES = ("/srv/fleet 3f2a",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    add_version(parser)
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="even if a red line, its drift, lost abilities or its answers have refused it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Sign the new current version into the journal."""
    from ..server.current_version import promote

    return print_current(promote(located(arguments), arguments.version, arguments.anyway))
