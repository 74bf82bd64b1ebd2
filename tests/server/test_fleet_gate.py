"""What the fleet's gate reads from sums of answers to trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedoel.codecs.tactics.policy import uniform_policy
from fedoel.protocol.config import RunConfig
from fedoel.protocol.experience import Aggregate
from fedoel.protocol.fleet.membership import keys_folder
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.trials import trial_vector
from fedoel.server.cycle.contender import Contender, Version
from fedoel.server.fleet import make_fleet
from fedoel.server.fleet_gate import FleetGate
from fedoel.server.run_plan import RunPlan


def test_wins_that_a_secure_sum_has_rounded_are_whole_games(tmp_path: Path) -> None:
    config = RunConfig.from_nested({"out": str(tmp_path), "games": {"families": "frozen-lake size=3 turns=6"}})
    make_fleet(keys_folder(config), 4)

    def ask(request: PlayRequest, part: int) -> Aggregate:
        merits, won = np.array([[-1.0, 2.0], [2.0, 2.0]]), np.array([[False, True], [True, True]])
        answer = trial_vector(request.spec, ["frozen-lake", "frozen-lake"], merits, won)
        return Aggregate(replace(answer, gradient=answer.gradient * np.float32(1.00001)), 1)

    gate = FleetGate(config, RunPlan.of(config), {}).with_fleet(ask, {})
    contender = Contender({"w": np.ones(1, np.float32)}, (uniform_policy(),))
    stats = gate.evidence(1, Version("v", {}), contender, 1, lambda done: None).stats
    assert (stats.win_rate, stats.episodes, stats.high) == (1.0, 2, 1.0)
