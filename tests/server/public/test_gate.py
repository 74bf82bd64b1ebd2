"""The gate of a server with games: what a refused answer costs is what it costs on devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import GamesConfig, RunConfig, ServerConfig
from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory
from fedoel.server.public.games import PublicGames
from fedoel.server.public.world_of_games import world

CONFIG = RunConfig(games=GamesConfig(families="tidy things=1 open=1 turns=1"), server=ServerConfig(public="games"))


@pytest.mark.parametrize(("refusal", "merit"), [(0.0, 0.0), (0.5, -0.5)])
def test_what_a_game_does_not_take_costs_what_the_setting_says(
    refusal: float, merit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    situation = Memory("Say where.", 1).see("-= Hall =-\nA hall.", ("east",), 0)
    turn = Turn(situation, np.zeros(1, np.float32), 0, 0.0, refused=True)
    played = [Trajectory(GameSpec("tidy", (), 1), 0, "v", (turn,), False, False, 0.0)]
    monkeypatch.setattr(PublicGames, "rollouts", lambda *arguments: played)
    gate: Any = world(replace(CONFIG, games=replace(CONFIG.games, refusal=refusal)), tmp_path).gate
    evidence = gate.evidence(1, None, None, 1, lambda finished: None)
    assert evidence.sample.merits.tolist() == [merit]
