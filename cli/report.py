"""The verb ``report``: the report and the figures of a run."""

from __future__ import annotations

import argparse

from .flags import path

HELP = "write report.html and the figures of a run again"
EXAMPLES = ("runs/mine",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", type=path, metavar="RUN", help="folder of the run")


def run(arguments: argparse.Namespace) -> int:
    """Write report and figures, and print their paths."""
    from ..simulations.figures import draw_learning_curve
    from ..simulations.report import write_report
    from ..simulations.summary import load_summary

    for written in (write_report(arguments.run), *draw_learning_curve(load_summary(arguments.run), arguments.run)):
        print(written)
    return 0
