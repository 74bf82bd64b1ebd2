"""The verb ``check-plugin``: the conformance suite on one plug-in."""

from __future__ import annotations

import argparse

from .flags import add_verbose

HELP = "find out which kind of plug-in something is, and check it; exits with 1 if a check fails"
EXAMPLES = ("my_strategy:MyStrategy",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("plugin", metavar="PLUGIN", help="module:Name, or the name of an installed one")
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check a plug-in and print the outcome of every check."""
    from ..simulations.conformance.checks import FAILED, PASSED, SKIPPED
    from ..simulations.conformance.plugin import check_plugin

    kind, outcomes = check_plugin(arguments.plugin)
    print(f"{arguments.plugin} is a {kind}", *outcomes, sep="\n")
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in (PASSED, FAILED, SKIPPED)}
    print(f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped")
    return int(counts[FAILED] > 0)
