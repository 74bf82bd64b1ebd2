"""The verb ``dash``: a page about a run, in a browser, while the run goes on."""

from __future__ import annotations

import argparse
from contextlib import suppress

from ..protocol.errors import ConfigError
from .flags import path, whole_number
from .version_text import add_folder

HELP = "show a run or a fleet in a browser, live: curve, decisions, lessons, devices, bytes, budget, versions"
EXAMPLES = ("runs/mine", "runs/mine --file page.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to listen on; one that other machines reach asks for a token (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=whole_number, default=8765, metavar="N", help="0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--file", type=path, metavar="PAGE.html", help="write the page to a file instead of serving it")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page, or write it."""
    from ..protocol.host.files import replace_file
    from ..simulations.page.render import render
    from ..simulations.page.watched import Watched

    if arguments.file:
        page = render(Watched(arguments.folder).view())
        try:
            replace_file(arguments.file, page)
        except OSError as error:
            raise ConfigError(f"{arguments.file} cannot be written: {error.strerror}; choose another --file") from error
        print(arguments.file)
        return 0
    from ..simulations.page.app import serve

    with suppress(KeyboardInterrupt):  # which is how it ends
        serve(arguments.folder, arguments.host, arguments.port)
    return 0
