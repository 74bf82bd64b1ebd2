"""The verb ``evaluate``: an adapter on held-out games, as a table with 95 % intervals."""

from __future__ import annotations

import argparse

from .flags import add_processes, add_settings, add_verbose, path, settings_of, whole_number

HELP = "measure an adapter on held-out games"
EXAMPLES = ("runs/mine/versions/3f2a --games 200",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("adapter", type=path, metavar="ADAPTER", help="folder of the adapter")
    parser.add_argument("--scenario", default="", help="file or built-in name (default: its run, or quick)")
    parser.add_argument(
        "--games", type=whole_number, metavar="N", help="number of held-out games (default: the scenario's)"
    )
    parser.add_argument("--personal", action="store_true", help="what each device gains by a context of its own")
    add_processes(parser)
    add_settings(parser)
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure an adapter and print the table."""
    from ..simulations.held_out import measure, measure_personal, personal_table, rates_table
    from ..simulations.needs import processes_of
    from ..simulations.scenario import scenario_of

    overrides = settings_of(arguments)
    if arguments.games is not None:
        overrides["games.held-out"] = arguments.games
    config = scenario_of(arguments.adapter, arguments.scenario, overrides)
    processes = processes_of(config, arguments.processes)
    if arguments.personal:
        print(personal_table(measure_personal(config, arguments.adapter)))
    else:
        print(rates_table(measure(config, arguments.adapter, processes)))
    return 0
