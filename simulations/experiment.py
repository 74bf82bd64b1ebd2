"""The verb ``experiment``: the same scenario in several arms and seeds, and one table and figure from all of them.

An experiment is a TOML file: a question, a scenario, seeds, settings for all arms, and settings for each. Every run
lies in a folder of its own, so that an experiment that was interrupted goes on where it stopped. Arms that the file
says `cannot` be run are there to be refused: the table says why.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..protocol.config import RunConfig, Scalar, read_toml
from ..protocol.errors import ConfigError
from ..server.files import write_whole
from ..server.run_folder import prepare_folder
from .experiment_table import arms_table
from .scenario import load_scenario, parse_setting
from .summary import read_summary

BUILT_IN = ("knowledge", "consistency", "loop", "transfer", "privacy")
FOLDER = Path(__file__).parent / "experiments"
KEYS = {"question", "scenario", "seeds", "settings", "arms"}
CANNOT = "cannot"
Settings = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared with what."""

    name: str
    question: str
    scenario: str
    seeds: tuple[int, ...]
    settings: Settings
    arms: Mapping[str, Settings]
    impossible: Mapping[str, Settings] = field(default_factory=dict)

    def config(self, arm: str, seed: int, out: Path) -> RunConfig:
        """Return the run of one arm and seed.

        Raises
        ------
        ConfigError
            If a setting is unknown or cannot be used.
        """
        folder = out / "runs" / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
        given = {**self.settings, **{**self.arms, **self.impossible}[arm], "seed": seed, "out": str(folder)}
        return replace(load_scenario(self.scenario, given), resume=folder.exists())


def run_verb(arguments: argparse.Namespace) -> int:
    """Run what is missing of an experiment, then write its results."""
    experiment = load_experiment(arguments.experiment, arguments.settings, arguments.seeds)
    out = Path(arguments.out or f"runs/experiment-{experiment.name}").expanduser().absolute()
    results = run_experiment(experiment, out)
    print(f"\n{experiment.question}\n\n{arms_table(results, refusals(experiment, out))}\n")
    for path in write_results(experiment, results, out):
        print(path)
    return 0


def load_experiment(name: str, settings: Sequence[str] = (), seeds: str = "") -> Experiment:
    """Read an experiment, built in by name or given by path.

    Parameters
    ----------
    settings
        ``key=value`` for all arms, over those of the file.
    seeds
        Numbers with commas between them, instead of those of the file.

    Raises
    ------
    ConfigError
        If there is no such experiment, or the file is not one.
    """
    path = FOLDER / f"{name}.toml" if name in BUILT_IN else Path(name)
    if not path.is_file():
        raise ConfigError(f"no experiment {name!r}: give the path of a TOML file, or one of {', '.join(BUILT_IN)}")
    read = read_toml(path)
    if set(read) - {CANNOT} != KEYS or not isinstance(read["arms"], dict) or not read["arms"]:
        raise ConfigError(f"{path}: an experiment has {', '.join(sorted(KEYS))}, and at least one arm")
    chosen = _seeds(seeds) if seeds else tuple(read["seeds"])
    shared = {**read["settings"], **dict(parse_setting(text) for text in settings)}
    impossible = read.get(CANNOT, {})
    return Experiment(path.stem, read["question"], read["scenario"], chosen, shared, read["arms"], impossible)


def run_experiment(experiment: Experiment, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Run every arm with every seed, seeds first, so that whole comparisons are there early.

    Returns
    -------
    dict
        Summaries of each arm, one a seed.

    Raises
    ------
    ConfigError
        If any arm cannot be run: all are checked before the first starts.
    """
    from .engines import check

    configs = {(arm, seed): experiment.config(arm, seed, out) for seed in experiment.seeds for arm in experiment.arms}
    for config in configs.values():
        check(config)
    refusals(experiment, out)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in experiment.arms}
    for (arm, seed), config in configs.items():
        print(f"--- {arm}, seed {seed}", flush=True)
        results[arm].append(_run(config))
    return results


def refusals(experiment: Experiment, out: Path) -> dict[str, str]:
    """Say why arms cannot be run that are there to show just that.

    Raises
    ------
    ConfigError
        If one of them can be run.
    """
    from .engines import check

    found: dict[str, str] = {}
    for arm in experiment.impossible:
        try:
            check(experiment.config(arm, experiment.seeds[0], out))
        except ConfigError as refusal:
            found[arm] = str(refusal)
        else:
            raise ConfigError(f"{experiment.name}: {arm!r} can be run, so it belongs to the arms, not to {CANNOT!r}")
    return found


def write_results(experiment: Experiment, results: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> list[Path]:
    """Write table, figure and summaries of an experiment, and return their paths."""
    from .experiment_figure import draw_arms

    heading = f"# {experiment.name}\n\n{experiment.question}\n\n"
    seeds = ", ".join(map(str, experiment.seeds))
    command = f"fedoel experiment {experiment.name} --seeds {seeds.replace(' ', '')}"
    below = f"\nSeeds {seeds}: means, and from the lowest to the highest. Made by `{command}`.\n"
    table = arms_table(results, refusals(experiment, out))
    write_whole(out / "table.md", f"{heading}{table}\n{below}".encode())
    write_whole(out / "results.json", json.dumps(results, indent=1).encode())
    return [out / "table.md", *draw_arms(experiment.question, results, out), out / "results.json"]


def _run(config: RunConfig) -> dict[str, Any]:
    """Run one arm to its end, unless it has been there, and return its summary."""
    from .engines import run_inprocess
    from .live import live_view

    prepare_folder(config)
    out = Path(config.out)
    if not ((out / "summary.json").exists() and len(read_summary(out)["cycles"]) > config.cycles):
        with live_view() as listener:
            run_inprocess(config, listener)
    return read_summary(out)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r}: write numbers with commas between them, e.g. 0,1,2") from error
