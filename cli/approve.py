"""The verb ``approve``: a candidate that waits for an operator becomes current."""

from __future__ import annotations

import argparse

from .version_text import add_folder, add_version, located, print_current

HELP = "make a candidate current that has passed every gate and waits (server.approve); see it with diff first"
EXAMPLES = ("/srv/fleet",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    add_version(parser, optional="the last one that waits")


def run(arguments: argparse.Namespace) -> int:
    """Sign the new current version into the journal."""
    from ..server.current_version import approve

    return print_current(approve(located(arguments), arguments.version))
