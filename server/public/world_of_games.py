"""A server that has games of its own: it plays them for the baseline, the trust region, distillation and the gate."""

from __future__ import annotations

from pathlib import Path

from ...games.families import red_lines_of
from ...protocol.config import RunConfig
from ..cycle.run import World
from .game_plan import GamePlan
from .games import PublicGames
from .gate import PublicGate
from .held_out import HeldOutGames
from .rollouts import GamesPublic


def world(config: RunConfig, cache: Path) -> World:
    """Return the parts of a run whose server plays; raises as `GamePlan.of` does."""
    games = PublicGames(GamePlan.of(config), cache)
    held_out = HeldOutGames(games, config.games.held_out_teacher)
    gate = PublicGate(games, config.games.refusal)
    return World(games.plan, GamesPublic(games), gate, held_out, red_lines_of(games.plan.specs))
