"""The verb ``experiment``: arms of a scenario over seeds."""

from __future__ import annotations

import argparse

from ..protocol.host.cache import expanded
from .flags import add_output, add_settings

HELP = "run the arms of an experiment that are missing, then write its table and figure"
EXAMPLES = ("knowledge --seeds 0,1,2",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("experiment", metavar="NAME", help="knowledge, federation, loop, privacy, ... or a TOML file")
    parser.add_argument("--seeds", default="", metavar="N,N", help="instead of those of the experiment")
    parser.add_argument("--arms", default="", metavar="ARM,ARM", help="only these")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: runs/experiment-NAME)")
    add_settings(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing of an experiment, then write its results and print their paths."""
    from ..simulations.experiment import load_experiment, results_table, run_experiment, write_results

    experiment = load_experiment(arguments.experiment, arguments.settings, arguments.seeds, arguments.arms)
    out = expanded(arguments.out or f"runs/experiment-{experiment.name}").absolute()
    results = run_experiment(experiment, out, quiet=arguments.quiet, verbose=arguments.verbose)
    table = results_table(experiment, results, out)
    *paths, last = write_results(experiment, results, table, out)
    if not arguments.quiet:
        print(f"\n{experiment.question}\n\n{table}", *paths, sep="\n")
    print(last)
    return 0
