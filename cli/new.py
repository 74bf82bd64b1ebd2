"""The verb ``new``: the package of a plug-in to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a package with a plug-in that works, registered by entry point and tested"
EXAMPLES = ("strategy my-strategy",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("kind", choices=("strategy", "codec", "game"), help="what to write")
    parser.add_argument("name", metavar="NAME", help="of the package and its folder: letters, digits, - and _")


def run(arguments: argparse.Namespace) -> int:
    """Write the package into a folder of its name, and print what to do with it."""
    from ..simulations.skeletons.package import class_name, module_name, write_skeleton

    folder = write_skeleton(arguments.kind, arguments.name, Path.cwd())
    print(f"{folder.name}/ holds a {arguments.kind} that works. Next:\n")
    print(f"  cd {folder.name}")
    print(f"  fedoel check-plugin {module_name(arguments.name)}:{class_name(arguments.kind, arguments.name)}")
    print("  python -m pytest")
    print("  pip install --editable .        # then it is found by name: fedoel plugins")
    return 0
