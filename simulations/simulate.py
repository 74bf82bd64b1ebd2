"""The verb ``simulate``: check the folder, run the engine under a live view, then draw and report."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ..protocol.config import RunConfig, Scalar
from ..protocol.errors import ConfigError
from .figures import draw_learning_curve
from .live import live_view
from .report import write_report
from .scenario import load_scenario, parse_setting
from .summary import headline, load_summary, table

STORED = "config.json"
PART = "config.json.part"
# Where a run lies and how it was started do not change what it does.
FREE = ("out", "cache", "resume")


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


def prepare_folder(config: RunConfig) -> None:
    """Make the folder of a run, or check that it holds the same run to resume.

    Raises
    ------
    ConfigError
        If the folder is in use and the run does not resume, or resumes with another configuration.
    """
    out = Path(config.out)
    try:
        # A run that was killed while it wrote its configuration has done nothing yet.
        used = out.exists() and any(path.name != PART for path in out.iterdir())
        if used:
            _check_resumes(config, out)
            return
        out.mkdir(parents=True, exist_ok=True)
        # Renamed into place: whoever finds the file finds all of it.
        (out / PART).write_text(json.dumps(config.to_flat(), indent=1), encoding="utf-8")
        os.replace(out / PART, out / STORED)
    except OSError as error:
        raise ConfigError(f"cannot use {out}: {error.strerror}; choose another folder with --out") from error


def stored_config(run: Path) -> RunConfig:
    """Read the configuration that a run was started with.

    Raises
    ------
    ConfigError
        If there is none, or it cannot be read.
    """
    path = run / STORED
    try:
        return RunConfig.from_flat(json.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the folder of a run") from error
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a stored configuration ({error}); choose another folder") from error


def _check_resumes(config: RunConfig, out: Path) -> None:
    if not config.resume:
        raise ConfigError(f"{out} is not empty: continue it with --resume, or choose another folder with --out")
    before, now = stored_config(out).to_flat(), config.to_flat()
    changed = [key for key in now if key not in FREE and before[key] != now[key]]
    if changed:
        differences = ", ".join(f"{key} was {before[key]!r} and is now {now[key]!r}" for key in changed)
        raise ConfigError(f"{out} holds another run: {differences}; use the same settings, or another --out")


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
