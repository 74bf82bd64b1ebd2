"""Flags that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from ..protocol.config import Scalar
from ..protocol.errors import ConfigError
from ..protocol.host.cache import expanded
from ..protocol.set_option import SET_HELP, parse_setting
from ..protocol.settings import shown

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
MOST_PROCESSES = 1024


def path(text: str) -> Path:
    """Read the path of a file or folder."""
    try:
        return expanded(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare ``--set``."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET_HELP)


def settings_of(arguments: argparse.Namespace) -> dict[str, Scalar]:
    """Return what ``--set`` sets.

    Raises
    ------
    ConfigError
        If one of them cannot be read.
    """
    return dict(parse_setting(text) for text in arguments.settings)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Declare ``--processes``."""
    parser.add_argument(
        "--processes", type=_number, metavar="N",
        help="how many processes play, encode and measure, with the same results (default: one per processor, as far "
        "as memory and the work allow)",
    )  # fmt: skip


def whole_number(text: str) -> int:
    """Read a whole number, of which argparse says what type it is to be and not how it is written."""
    try:
        return int(text)
    except ValueError as error:  # also of more digits than Python reads
        raise argparse.ArgumentTypeError(f"must be a whole number in digits, such as 100, not {shown(text)}") from error


def _number(text: str) -> int:
    number = whole_number(text)
    if not 1 <= number <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_PROCESSES}, not {number}")
    return number


def add_verbose(parser: argparse._ActionsContainer) -> None:
    """Declare ``--verbose``: without it, `fedoel.cli.output` hides what libraries print."""
    parser.add_argument("--verbose", action="store_true", help="show messages of Flower and of other libraries, too")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare ``--quiet`` and ``--verbose``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and the last line")
    add_verbose(group)


def add_verb(verbs: Verbs, name: str, text: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """Add a verb, and return its parser.

    Parameters
    ----------
    text
        What it does, in one sentence without a full stop.
    examples
        Words that can follow the verb; its help shows each as a command.
    """
    verb = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # one example a line
    )
    lines = [f"  {verb.prog} {words}".rstrip() for words in examples]
    verb.epilog = "\n".join(["example:" if len(lines) == 1 else "examples:", *lines])
    return verb


def add_folder_verb(verbs: Verbs, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """Add a verb that works on the folder of a device or a server, and return its parser; see `add_verb`."""
    verb = add_verb(verbs, name, text, [example])
    verb.add_argument("dir", type=path, metavar="DIR", help="its folder")
    return verb
