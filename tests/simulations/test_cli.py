"""The command line: exit codes, what it refuses, and how fast it answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.records.events import Listener, RunFinished
from fedoel.protocol.records.summary import Summary
from fedoel.protocol.situation import Memory
from fedoel.server.run_folder import STORED, prepare_folder, stored_config
from fedoel.simulations.cli import INTERRUPTED, REFUSED, main
from fedoel.simulations.evaluate import rates_table, scenario_of
from fedoel.simulations.play import show
from fedoel.simulations.scenario import load_scenario

HELP_SECONDS = 0.25
Save = Callable[[Path, Summary], Path]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, save: Save, summary: Summary) -> ModuleType:
    """Engines that leave the files of a run without playing."""

    def leave_files(config: RunConfig, listener: Listener) -> None:
        listener(RunFinished(t=1.0, summary="summary.json"))
        (Path(config.out) / "events.jsonl").unlink(missing_ok=True)
        save(Path(config.out), summary)

    module = ModuleType("engines")
    vars(module).update(run_inprocess=leave_files, run_ray=leave_files)
    vars(module).update(check=lambda config: None, add_tactics_floor=lambda config: None)
    monkeypatch.setitem(sys.modules, "fedoel.simulations.engines", module)
    return module


@pytest.mark.parametrize("words", [["--help"], ["simulate", "--help"], ["device", "--help"]])
def test_help_answers_at_once(words: list[str]) -> None:
    call = [sys.executable, "-c", "from fedoel.simulations.cli import main; main()", *words]
    subprocess.run(call, check=True, capture_output=True)

    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run(call, check=True, capture_output=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < HELP_SECONDS


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, fedoel.simulations.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "flwr", "torch", "rich", "matplotlib", "transformers"} & set(loaded)


def test_simulate_runs_reports_and_prints(
    engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["simulate", "quick", "--out", str(out), "--clients", "3", "--set", "games.gate=5"]) == 0
    said = capsys.readouterr().out
    assert "promoted" in said
    for name in ("report.html", "learning-curve.png", "learning-curve.svg", "summary.json"):
        assert str(out / name) in said
        assert (out / name).stat().st_size
    stored = json.loads((out / "config.json").read_text())
    assert (stored["clients"], stored["games.gate"]) == (3, 5)


def test_a_run_is_not_overwritten_and_resumes_only_as_itself(
    engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["simulate", "--scale", "quick", "--out", str(tmp_path / "run")]
    assert main(call) == 0
    assert main(call) == REFUSED
    assert "--resume" in capsys.readouterr().err
    assert main([*call, "--resume"]) == 0
    assert main([*call, "--resume", "--seed", "4"]) == REFUSED
    assert "seed was 0 and is now 4" in capsys.readouterr().err


def test_a_run_killed_before_it_began_starts_over(tmp_path: Path) -> None:
    (tmp_path / "config.json.part").write_text('{"na')
    prepare_folder(load_scenario("quick", {"out": str(tmp_path), "resume": True}))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert stored_config(tmp_path).out == str(tmp_path)


def test_a_folder_of_something_else_is_left_alone(
    engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for more in ([], ["--resume"]):
        assert main(["simulate", "--out", str(tmp_path), *more]) == REFUSED
    assert main(["simulate", "--out", str(tmp_path / "notes.txt")]) == REFUSED
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_ctrl_c_says_how_to_go_on(
    engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: RunConfig, listener: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "run_ray", interrupt)
    out = str(tmp_path / "a run")
    assert main(["simulate", "--engine", "ray", "--out", out]) == INTERRUPTED
    assert f"continue with: fedoel simulate --engine ray --out '{out}' --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "nowhere.toml"],
        ["simulate", "--set", "nonsense"],
        ["simulate", "--clients", "0"],
        ["evaluate", "nowhere"],
        ["report", "nowhere"],
        ["play", "--adapter", "nowhere"],
        ["play", "--run", "nowhere"],
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == REFUSED
    assert capsys.readouterr().err.startswith("fedoel: ")


def test_report_is_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out


def test_an_episode_is_shown_with_the_chosen_command_marked() -> None:
    situation = Memory("find the coin", 7).see("-= Hall =-\nA hall.", ("go north", "go south"), 0)
    turn = Turn(situation, np.log(np.array([0.75, 0.25], dtype=np.float32)), 1, 0.0)
    spec = GameSpec.parse("coin-collector level=102 turns=7")
    text = show(Trajectory(spec, 3, "v-1", (turn,), won=True, lost=False, score=1.0))
    assert "Goal: find the coin" in text
    assert "A hall." in text
    assert "  go north ██████████████████        75.0%" in text
    assert "> go south ██████                    25.0%" in text
    assert "won after 1 turn, score 100%" in text


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
