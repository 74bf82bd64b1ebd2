"""An adapter on held-out games: win rates by family with 95 % intervals, and the gain from personalisation.

For that gain, every client plays its private games of the cycle after the last, which were not trained on, and
estimates its own context from them. Then it plays the held-out games of the same families with the context and without
it, with the same random streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..client.app import private_games
from ..client.personal_context import check_personal, personalised
from ..codecs.encoder import count, load_encoder, rewarded
from ..games.player import play_episodes
from ..policies.backend import load_version
from ..protocol.config import RunConfig
from ..protocol.host.cache import cache_folder
from ..protocol.records.summary import Stats
from ..server.cycle.contender import Contender
from ..server.evaluation import by_family
from ..server.public.game_plan import GamePlan
from ..server.public.games import PublicGames
from ..server.registry import load_adapter
from .divided_games import divided_report
from .summary import aligned, percent
from .workers import Workers


def measure(config: RunConfig, adapter: Path, processes: int = 1) -> Mapping[str, Stats]:
    """Play the held-out games of a scenario with an adapter, and return the results by family.

    With its scenario and seed, this gives a run's own numbers: random streams and batches are the same.
    """
    cache = cache_folder(config)
    version, arrays = load_adapter(adapter)
    policy = load_version(config.policy, arrays, version, cache)
    with Workers(processes) as workers:
        report = divided_report(config, cache, workers)
        contender = Contender(arrays, (policy,))
        return by_family(report.rollouts(contender, report.games.plan.held_out, lambda finished: None))


def rates_table(results: Mapping[str, Stats]) -> str:
    """Return results by family as aligned text."""
    rows: list[Sequence[str]] = [("family", "won", "games", "turns per win", "tokens per win")]
    for family, stats in results.items():
        efficiency = ("-" if price is None else f"{price:.1f}" for price in (stats.turns_per_win, stats.tokens_per_win))
        rows.append((family, percent(stats), str(stats.episodes), *efficiency))
    return aligned(rows)


@dataclass(frozen=True, slots=True)
class Extra:
    """One client's win rate on held-out games with the shared version, and with its own context in addition."""

    client: int
    shared: float
    personal: float


def measure_personal(config: RunConfig, adapter: Path) -> list[Extra]:
    """Measure the gain of every client of a scenario with a version.

    Raises
    ------
    ConfigError
        If the scenario's codec is not `tactics`, in which personal contexts are defined.
    """
    check_personal(config)
    plan, cache = GamePlan.of(config), cache_folder(config)
    version, arrays = load_adapter(adapter)
    policy = load_version(config.policy, arrays, version, cache)
    public, cycle = PublicGames(plan, cache), config.cycles + 1
    spec = plan.vector_spec(config, load_encoder(config.codec.name), version)
    rehearsed = rewarded(public.play(policy, plan.rehearsal, "rehearsal", cycle), config.games.refusal)
    baseline = count(rehearsed, spec, config.codec.discount).baseline()
    streams, extras = plan.streams("held-out", len(plan.held_out)), list[Extra]()
    for client in range(config.clients):
        games, seeds = private_games(config, cycle, client, config.clients)
        played = play_episodes(policy, games, seeds, cache)
        personal = personalised(policy, played, spec, baseline, config)
        families = {game.family for game, _ in games}
        pairs = [pair for pair in zip(plan.held_out, streams, strict=True) if pair[0][0].family in families]
        held_out, random = [game for game, _ in pairs], [stream for _, stream in pairs]
        rates = [
            sum(trajectory.won for trajectory in play_episodes(player, held_out, random, cache)) / len(held_out)
            for player in (policy, personal)
        ]
        extras.append(Extra(client, *rates))
    return extras


def personal_table(extras: Sequence[Extra]) -> str:
    """Return a table of the clients' results and their mean, as aligned text."""
    mean = Extra(-1, *(fmean(getattr(extra, name) for extra in extras) for name in ("shared", "personal")))
    lines = [f"{'client':<8}{'shared':>9}{'personal':>10}{'extra':>7}"]
    for row in (*extras, mean):
        name, gain = "mean" if row is mean else str(row.client), 100 * (row.personal - row.shared)
        lines.append(f"{name:<8}{100 * row.shared:>7.0f} %{100 * row.personal:>8.0f} %{gain:>+7.0f}")
    return "\n".join(lines)
