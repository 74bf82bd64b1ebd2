"""The verb ``settings``: every setting of a run, with its type, default, range and meaning."""

from __future__ import annotations

import argparse

HELP = "list the settings of a run, or explain one"
EXAMPLES = ("", "games.per-client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="e.g. games.per-client (default: all, as a table)")


def run(arguments: argparse.Namespace) -> int:
    """Print the declaration of one setting, or the table of all."""
    from ..protocol.config import RunConfig
    from ..protocol.settings import explain, settings_table

    print(explain(RunConfig, arguments.name) if arguments.name else settings_table(RunConfig))
    return 0
