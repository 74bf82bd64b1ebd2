"""The verb ``rollback``: an earlier version becomes current."""

from __future__ import annotations

import argparse

from .version_text import add_folder, add_version, located, print_current

HELP = "make an earlier version current: signed at once, and with devices at their next message"
EXAMPLES = ("/srv/fleet",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    add_version(parser, optional="the parent of the current one")


def run(arguments: argparse.Namespace) -> int:
    """Sign the new current version into the journal."""
    from ..server.current_version import roll_back

    return print_current(roll_back(located(arguments), arguments.version))
