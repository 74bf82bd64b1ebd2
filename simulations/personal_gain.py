"""What devices gain by contexts of their own, on top of a shared version.

Every client plays the private games of the cycle after the last, which nobody has learned from, and keeps its own
context. Then it plays the held-out games of the families that it met, with the context and without, with the same
random streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..client.app import private_games
from ..client.personal_context import check_personal, personalised
from ..codecs.encoder import count, load_encoder
from ..games.cache import cache_folder
from ..games.player import play_episodes
from ..policies.backend import load_version
from ..protocol.config import RunConfig
from ..server.cycle.public_games import PublicGames
from ..server.game_plan import GamePlan
from ..server.registry import load_adapter


@dataclass(frozen=True, slots=True)
class Extra:
    """One client's share of held-out games won by the shared version, and with the client's own context on top."""

    client: int
    shared: float
    personal: float


def measure_personal(config: RunConfig, adapter: Path) -> list[Extra]:
    """Measure every client of a scenario with a version.

    Raises
    ------
    ConfigError
        If the scenario's codec is not `tactics`: contexts of its own are weights of tactics.
    """
    check_personal(config)
    plan, cache = GamePlan.of(config), cache_folder(config)
    version, arrays = load_adapter(adapter)
    policy = load_version(config.policy, arrays, version, cache)
    public, cycle = PublicGames(plan, cache), config.cycles + 1
    spec = plan.vector_spec(config, load_encoder(config.codec.name), version)
    baseline = count(public.play(policy, plan.rehearsal, "rehearsal", cycle), spec, config.codec.discount).baseline()
    streams, found = plan.streams("held-out", len(plan.held_out)), list[Extra]()
    for client in range(config.clients):
        games, seeds = private_games(config, cycle, client, config.clients)
        played = play_episodes(policy, games, seeds, cache)
        own = personalised(policy, played, spec, baseline, config)
        met = {game.family for game, _ in games}
        mine = [(game, stream) for game, stream in zip(plan.held_out, streams, strict=True) if game[0].family in met]
        held_out, random = [game for game, _ in mine], [stream for _, stream in mine]
        rates = [
            sum(each.won for each in play_episodes(player, held_out, random, cache)) / len(held_out)
            for player in (policy, own)
        ]
        found.append(Extra(client, *rates))
    return found


def personal_table(extras: Sequence[Extra]) -> str:
    """Return the results of every client as aligned text, and their mean."""
    mean = Extra(-1, *(fmean(getattr(each, name) for each in extras) for name in ("shared", "personal")))
    lines = [f"{'client':<8}{'shared':>9}{'personal':>10}{'extra':>7}"]
    for each in (*extras, mean):
        name, extra = "mean" if each is mean else str(each.client), 100 * (each.personal - each.shared)
        lines.append(f"{name:<8}{100 * each.shared:>7.0f} %{100 * each.personal:>8.0f} %{extra:>+7.0f}")
    return "\n".join(lines)
