"""The verb ``verify``: whether a run on disk is what its journal says."""

from __future__ import annotations

import argparse

from .version_text import add_folder, located

HELP = "check a run's journal, files, versions, cohorts, gates and budget; exits with 1 and names what was changed"
EXAMPLES = ("/srv/fleet",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    parser.add_argument(
        "--head", default="", metavar="DIGEST", help="digest that an earlier check printed: the journal must hold it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was checked, and everything that does not hold."""
    from ..server.verify import verify

    result = verify(located(arguments), arguments.head)
    for line in result.checked:
        print(f"checked  {line}")
    for line in result.notes:
        print(f"note     {line}")
    for line in result.problems:
        print(f"WRONG    {line}")
    if result.head:
        print(f"head     {result.head}")
    print("the run is not what it was" if result.problems else "everything that was checked holds")
    return 1 if result.problems else 0
