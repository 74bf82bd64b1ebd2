"""An adapter on held-out games: win rates by family with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..games.cache import cache_folder
from ..games.player import play_episodes
from ..policies.backend import load_version
from ..protocol.config import RunConfig
from ..protocol.records.summary import Stats
from ..server.evaluation import by_family
from ..server.game_plan import GamePlan
from ..server.registry import load_adapter
from .summary import percent


def measure(config: RunConfig, adapter: Path) -> Mapping[str, Stats]:
    """Play the held-out games of a scenario with an adapter, and return the results by family."""
    cache = cache_folder(config)
    version, arrays = load_adapter(adapter)
    plan = GamePlan.of(config)
    policy = load_version(config.policy, arrays, version, cache)
    # The run's own random streams: with its scenario and seed, this gives the run's own numbers.
    streams = plan.streams("held-out", len(plan.held_out))
    return by_family(play_episodes(policy, plan.held_out, streams, cache))


def rates_table(results: Mapping[str, Stats]) -> str:
    """Return results by family as aligned text."""
    rows: list[tuple[str, ...]] = [("family", "won", "games", "turns per win", "tokens per win")]
    for family, stats in results.items():
        efficiency = ("-" if price is None else f"{price:.1f}" for price in (stats.turns_per_win, stats.tokens_per_win))
        rows.append((family, percent(stats), str(stats.episodes), *efficiency))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
