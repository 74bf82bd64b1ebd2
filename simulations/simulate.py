"""The verb ``simulate``: check the folder, run the engine under a live view, then draw and report."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..protocol.config import RunConfig, Scalar
from ..server.run_folder import prepare_folder
from .figures import draw_learning_curve
from .live import live_view
from .report import write_report
from .scenario import load_scenario, parse_setting
from .summary import headline, load_summary, table


def run_verb(arguments: argparse.Namespace) -> int:
    """Run a scenario to its end and print what came out."""
    config = load_scenario(arguments.scenario or arguments.scale or "quick", _overrides(arguments))
    _check(config)
    prepare_folder(config)
    _engine(config, arguments.engine)
    out = Path(config.out)
    summary = load_summary(out)
    png, svg = draw_learning_curve(summary, out)
    report = write_report(out)
    print(f"\n{headline(summary)}\n\n{table(summary)}\n")
    for path in (report, png, svg, out / "summary.json"):
        print(path)
    return 0


def _overrides(arguments: argparse.Namespace) -> dict[str, Scalar]:
    settings = dict(parse_setting(text) for text in arguments.settings)
    named = {key: getattr(arguments, key) for key in ("clients", "cycles", "seed", "out")}
    given = {key: value for key, value in named.items() if value is not None}
    return {**settings, **given, "resume": arguments.resume}


def _check(config: RunConfig) -> None:
    from .engines import check

    check(config)


def _engine(config: RunConfig, name: str) -> None:
    from .engines import add_tactics_floor, run_inprocess, run_ray

    with live_view() as listener:
        (run_ray if name == "ray" else run_inprocess)(config, listener)
    add_tactics_floor(config)
