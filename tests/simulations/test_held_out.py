"""An adapter on held-out games: in which scenario, and how the results are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fedoel.protocol.config import RunConfig
from fedoel.protocol.records.summary import Summary
from fedoel.server.run_folder import STORED
from fedoel.simulations.held_out import rates_table
from fedoel.simulations.scenario import scenario_of


def test_an_adapter_is_measured_in_the_scenario_of_its_run(tmp_path: Path) -> None:
    ours = RunConfig(name="mine", seed=5, clients=3)
    (tmp_path / "versions" / "v-1").mkdir(parents=True)
    assert scenario_of(tmp_path / "versions" / "v-1").name == "quick"
    (tmp_path / STORED).write_text(json.dumps(ours.to_flat()))
    assert scenario_of(tmp_path / "versions" / "v-1") == ours
    assert scenario_of(tmp_path / "versions" / "v-1", overrides={"games.held-out": 7}).games.held_out == 7
    assert scenario_of(tmp_path / "versions" / "v-1", "standard").name == "standard"


def test_results_of_an_adapter_are_a_table(summary: Summary) -> None:
    results = {"cooking": summary.floors.random, "none": replace(summary.floors.random, turns_per_win=None)}
    head, first, second = rates_table(results).splitlines()
    assert head.startswith("family")
    assert "20 % (14-26 %)" in first
    assert " - " in second
