"""The verb ``simulate``: run the engine under a live view, then draw and report."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import add_output, add_processes, add_settings, settings_of, whole_number

if TYPE_CHECKING:
    from ..protocol.config import Scalar

HELP = "run a federation on this machine, and report on it"
EXAMPLES = ("", "--scale standard --seed 1 --out runs/mine", "my.toml --clients 50 --set games.partition=by-family")
SCALES = ("quick", "words", "standard", "full", "private")
ENGINES = ("inprocess", "ray")
TRACKERS = ("tensorboard", "trackio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    scenario = parser.add_mutually_exclusive_group()
    scenario.add_argument("scenario", nargs="?", metavar="SCENARIO", help="TOML file or built-in name (default: quick)")
    scenario.add_argument("--scale", choices=SCALES, help="built-in scenario by size")
    parser.add_argument(
        "--engine", choices=ENGINES, default="inprocess", help="where clients run (default: %(default)s)"
    )
    add_processes(parser)
    parser.add_argument("--clients", type=whole_number, metavar="N", help="number of clients")
    parser.add_argument("--cycles", type=whole_number, metavar="N", help="number of cycles after the warm start")
    parser.add_argument("--seed", type=whole_number, metavar="N", help="picks games, mixes and draws")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/NAME-SEED)")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")
    parser.add_argument(
        "--track", action="append", choices=TRACKERS, default=[],
        help="keep the curves of the run there, too; can be repeated, and needs the extra of this name",
    )  # fmt: skip
    add_settings(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run a scenario to its end and print its results."""
    from ..protocol.errors import ConfigError
    from ..server.run_folder import STORED, own_folder
    from ..simulations.figures import draw_learning_curve
    from ..simulations.floor import add_tactics_floor
    from ..simulations.inprocess import check, run_inprocess
    from ..simulations.live import live_view
    from ..simulations.needs import processes_of
    from ..simulations.ray_engine import check_ray, run_ray
    from ..simulations.report import write_report
    from ..simulations.scenario import load_scenario
    from ..simulations.summary import headline, load_summary, table
    from ..simulations.track import check_trackers, tracked

    config = load_scenario(arguments.scenario or arguments.scale or "quick", _overrides(arguments))
    out = Path(config.out)
    if config.resume and not (out / STORED).is_file():
        raise ConfigError(f"there is no run to continue at {out}: name its folder with --out, or leave out --resume")
    check_trackers(arguments.track)
    if arguments.processes and arguments.engine == "ray":
        raise ConfigError("--processes is for the engine inprocess: ray takes all processors of its cluster")
    processes = processes_of(config, arguments.processes)
    check(config, processes)
    if arguments.engine == "ray":
        check_ray()
    with own_folder(config), _saying_how_to_go_on(arguments):
        with (
            live_view(config, arguments.engine, quiet=arguments.quiet, verbose=arguments.verbose) as view,
            tracked(arguments.track, config, view) as listener,
        ):
            if arguments.engine == "ray":
                run_ray(config, listener)
            else:
                run_inprocess(config, listener, processes=processes)
        add_tactics_floor(config)
        summary = load_summary(out)
        png, svg = draw_learning_curve(summary, out)
        report = write_report(out)
    if not arguments.quiet:
        print(f"\n{headline(summary)}\n\n{table(summary)}\n", report, png, svg, sep="\n")
    print(out / "summary.json")
    return 0


@contextmanager
def _saying_how_to_go_on(arguments: argparse.Namespace) -> Iterator[None]:
    """Say the command that continues a run that Ctrl-C has ended; before its folder is there, none does."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        words = [word for word in arguments.words if word != "--resume"]
        raise KeyboardInterrupt(f"continue with: {shlex.join(['fedoel', *words, '--resume'])}") from interrupt


def _overrides(arguments: argparse.Namespace) -> dict[str, Scalar]:
    named = {key: getattr(arguments, key) for key in ("clients", "cycles", "seed", "out")}
    given = {key: value for key, value in named.items() if value is not None}
    return {**settings_of(arguments), **given, "resume": arguments.resume}
