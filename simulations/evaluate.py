"""The verb ``evaluate``: an adapter on held-out games, as a table with 95 % intervals."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from ..protocol.config import RunConfig, Scalar
from ..protocol.errors import ConfigError
from ..protocol.records.summary import Stats
from ..server.run_folder import STORED, stored_config
from .scenario import load_scenario, parse_setting
from .summary import percent


def run_verb(arguments: argparse.Namespace) -> int:
    """Measure an adapter and print the table."""
    overrides = dict(parse_setting(text) for text in arguments.settings)
    if arguments.games is not None:
        overrides["games.held-out"] = arguments.games
    adapter = existing(arguments.adapter)
    if arguments.personal:
        from .personal_gain import measure_personal, personal_table

        print(personal_table(measure_personal(scenario_of(adapter, arguments.scenario, overrides), adapter)))
        return 0
    print(rates_table(measure(scenario_of(adapter, arguments.scenario, overrides), adapter)))
    return 0


def scenario_of(adapter: Path, scenario: str = "", overrides: Mapping[str, Scalar] | None = None) -> RunConfig:
    """Return the scenario that is named, or else the one of the run that made the adapter, or else ``quick``."""
    run = adapter.absolute().parent.parent
    if not scenario and (run / STORED).is_file():
        return RunConfig.from_flat({**stored_config(run).to_flat(), **(overrides or {})})
    return load_scenario(scenario or "quick", overrides)


def existing(adapter: str) -> Path:
    """Return the path of an adapter.

    Raises
    ------
    ConfigError
        If there is nothing.
    """
    path = Path(adapter).expanduser()
    if not path.exists():
        raise ConfigError(f"no adapter at {path}: give a folder from the versions of a run")
    return path


def measure(config: RunConfig, adapter: Path) -> Mapping[str, Stats]:
    """Play the held-out games of a scenario with an adapter, and return the results by family."""
    from ..games.cache import cache_folder
    from ..policies.backend import load_version
    from ..server.evaluation import play_and_summarise
    from ..server.game_plan import GamePlan
    from ..server.registry import load_adapter

    cache = cache_folder(config)
    version, arrays = load_adapter(adapter)
    plan = GamePlan.of(config)
    policy = load_version(config.policy, arrays, version, cache)
    # The run's own random streams: with its scenario and seed, this gives the run's own numbers.
    streams = plan.streams("held-out", len(plan.held_out))
    return play_and_summarise(policy, plan.held_out, streams, cache)


def rates_table(results: Mapping[str, Stats]) -> str:
    """Return results by family as aligned text."""
    rows: list[tuple[str, ...]] = [("family", "won", "games", "turns per win", "tokens per win")]
    for family, stats in results.items():
        efficiency = ("-" if price is None else f"{price:.1f}" for price in (stats.turns_per_win, stats.tokens_per_win))
        rows.append((family, percent(stats), str(stats.episodes), *efficiency))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
