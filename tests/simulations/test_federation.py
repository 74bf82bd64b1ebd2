"""The experiment `federation`: arms that are made in different ways, in one table, one comparison and one figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from fedoel.cli.main import main
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.summary import Summary
from fedoel.simulations.experiment import load_experiment
from fedoel.simulations.experiment_figures import Cost, comparison, costs, mean_costs

from .conftest import make_summary, record

SMALL = [
    "policy.backend=tactics", "games.families=frozen-lake size=3 turns=6; sokoban turns=5", "clients=2", "cycles=1",
    "games.per-client=2", "games.rehearsal=4", "games.gate=4", "games.held-out=6", "games.held-out-teacher=2",
]  # fmt: skip
ARMS = "federated,pooled,fedavg-lora,tactics only"


def test_every_arm_without_words_runs_without_a_language_model(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, settings = tmp_path / "out", [word for each in SMALL for word in ("--set", each)]
    command = ["experiment", "federation", "--seeds", "0", "--out", str(out), *settings, "--set", f"cache={cache}"]
    assert main([*command, "--arms", ARMS]) == 0
    assert "over pooled" not in capsys.readouterr().out  # local-only is missing
    results = json.loads((out / "results.json").read_text())
    assert list(results) == ARMS.split(",")
    for runs in results.values():
        first, last = runs[0]["cycles"]
        assert first["held_out"]["episodes"] == last["held_out"]["episodes"] == 6
        assert last["uplink_bytes"] > 500 and last["seconds"]["collect"] >= 0
        assert first["held_out"] == results["federated"][0]["cycles"][0]["held_out"]
    assert all((out / name).stat().st_size > 1000 for name in ("costs.png", "costs.svg", "arms.svg"))


def test_arms_are_chosen_by_name() -> None:
    whole = load_experiment("federation")
    assert list(load_experiment("federation", arms="text-compendium,federated").arms) == [
        "text-compendium",
        "federated",
    ]
    assert [whole.method(arm).NAME for arm in whole.arms] == [
        "federated", "pooled", "local-only", "federated", "fedavg-lora", "federated", "federated",
    ]  # fmt: skip
    commas = load_experiment("loop", arms="off-policy, forward KL, retention 0.3,on-policy")
    assert list(commas.arms) == ["off-policy, forward KL, retention 0.3", "on-policy"]
    with pytest.raises(ConfigError, match="no arm at 'wisdom'"):
        load_experiment("federation", arms="federated,wisdom")


def run_of(rates: list[float], sent: float, seconds: float) -> Summary:
    cycles = [
        replace(record(n, rate), uplink_bytes=sent if n else 0, seconds={"collect": seconds if n else 0})
        for n, rate in enumerate(rates)
    ]
    return replace(make_summary(clients=4), cycles=tuple(cycles))


def test_costs_add_up_over_cycles_and_are_those_of_one_client() -> None:
    run = run_of([0.1, 0.5, 0.7], 100.0, 8.0)
    assert costs(run) == [Cost(0, 0, 0.1), Cost(100, 2, 0.5), Cost(200, 4, 0.7)]
    longer = run_of([0.3, 0.7, 0.9, 1.0], 300.0, 16.0)
    assert mean_costs([run, longer])[1] == Cost(200, 3, fmean([0.5, 0.7]))
    assert len(mean_costs([run, longer])) == 3


def test_a_comparison_is_made_seed_by_seed() -> None:
    federated, pooled = [run_of([0.1, 0.8], 1, 1), run_of([0.1, 0.9], 1, 1)], [run_of([0.1, 1.0], 1, 1)] * 2
    said = comparison(federated, pooled, [run_of([0.1, 0.3], 0, 1), run_of([0.1, 0.5], 0, 1)])
    assert said == "What the federation wins, over pooled: 85 % (80-90); over local-only: +45 points (+40-+50)."
