"""The verb ``completion``: a script with which a shell completes fedoel's verbs, flags and values, made by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .flags import path

HELP = "print the script with which a shell completes fedoel's commands"
EXAMPLES = ("bash > ~/.local/share/bash-completion/completions/fedoel", "zsh > ~/.zfunc/_fedoel")
SHELLS = ("bash", "zsh", "fish")
FOLDERS = ("DIR", "FOLDER", "RUN", "ADAPTER", "VERSION")  # metavars of arguments that name folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    for action in actions(arguments.root):
        if action.type is path:
            action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(arguments.root, arguments.shell))
    return 0


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of a parser and of all parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from actions(below)
