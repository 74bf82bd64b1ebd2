"""The verb `simulate`: its folder, how it goes on, and what it prints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedoel.cli.main import INTERRUPTED, REFUSED, main
from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.lock import one_owner
from fedoel.protocol.records.events import Listener, RunFinished
from fedoel.protocol.records.summary import Summary
from fedoel.server.run_folder import prepare_folder, stored_config
from fedoel.simulations import floor, inprocess, ray_engine
from fedoel.simulations.scenario import load_scenario

Save = Callable[[Path, Summary], Path]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, save: Save, summary: Summary) -> None:
    """Engines that leave the files of a run without playing."""

    def leave_files(config: RunConfig, listener: Listener, processes: int = 1) -> None:
        listener(RunFinished(t=1.0, summary="summary.json"))
        (Path(config.out) / "events.jsonl").unlink(missing_ok=True)
        save(Path(config.out), summary)

    for engine in (inprocess.run_inprocess, ray_engine.run_ray):
        monkeypatch.setattr(f"{engine.__module__}.{engine.__name__}", leave_files)
    for step in (inprocess.check, floor.add_tactics_floor):
        monkeypatch.setattr(f"{step.__module__}.{step.__name__}", lambda config, processes=1: None)


@pytest.mark.usefixtures("engines")
def test_simulate_runs_reports_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["simulate", "quick", "--out", str(out), "--clients", "3", "--set", "games.gate=5"]) == 0
    said = capsys.readouterr().out
    assert "promoted" in said
    for name in ("report.html", "learning-curve.png", "learning-curve.svg", "summary.json"):
        assert str(out / name) in said
        assert (out / name).stat().st_size
    stored = json.loads((out / "config.json").read_text())
    assert (stored["clients"], stored["games.gate"]) == (3, 5)


@pytest.mark.usefixtures("engines")
def test_a_run_is_not_overwritten_and_resumes_only_as_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["simulate", "--scale", "quick", "--out", str(tmp_path / "run")]
    assert main(call) == 0
    assert main(call) == REFUSED
    assert "--resume" in capsys.readouterr().err
    assert main([*call, "--resume"]) == 0
    assert main([*call, "--resume", "--seed", "4"]) == REFUSED
    assert "seed was 0 and is now 4" in capsys.readouterr().err


@pytest.mark.usefixtures("engines")
def test_a_run_goes_on_with_more_cycles_and_never_with_fewer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["simulate", "--scale", "quick", "--out", str(tmp_path / "run")]
    assert main(call) == 0
    assert main([*call, "--resume", "--cycles", "4"]) == 0
    assert stored_config(tmp_path / "run").cycles == 4
    assert main([*call, "--resume", "--cycles", "3"]) == main([*call, "--resume"]) == REFUSED
    assert "run of 4 cycles, and cycles is now 2: a run can get more cycles, not fewer" in capsys.readouterr().err


def test_a_run_killed_before_it_began_starts_over(tmp_path: Path) -> None:
    (tmp_path / "config.json.part").write_text('{"na')
    prepare_folder(load_scenario("quick", {"out": str(tmp_path), "resume": True}))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert stored_config(tmp_path).out == str(tmp_path)


@pytest.mark.usefixtures("engines")
def test_a_run_that_is_not_there_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path / "run"), "--resume"]) == REFUSED
    assert capsys.readouterr().err.startswith(f"fedoel: there is no run to continue at {tmp_path / 'run'}")
    assert not any(tmp_path.iterdir())
    (tmp_path / "run").mkdir()
    assert main(["simulate", "--out", str(tmp_path / "run"), "--resume"]) == REFUSED
    assert capsys.readouterr().err.startswith(f"fedoel: there is no run to continue at {tmp_path / 'run'}")
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.usefixtures("engines")
def test_a_run_has_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["simulate", "--scale", "quick", "--out", str(tmp_path / "run")]
    assert main(call) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.name != "run.lock"}
    with one_owner(tmp_path / "run" / "run.lock", "runs it"):
        for more in ([], ["--resume"]):
            assert main([*call, *more]) == REFUSED
            error = capsys.readouterr().err
            assert error.startswith(f"fedoel: process {os.getpid()} runs in {tmp_path / 'run'}: wait until it ends")
            assert error.count("\n") == 1
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before
    assert main([*call, "--resume"]) == 0


@pytest.mark.parametrize("public", ["games", "prompts"])
def test_more_games_than_a_client_has_are_refused_before_there_is_a_folder(
    public: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (f"server.public={public}", "games.per-client=100000000000", "policy.backend=tactics")
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["simulate", "--out", str(tmp_path / "run"), *words]) == REFUSED
    error = capsys.readouterr().err
    assert error.startswith("fedoel: games.per-client 100000000000") and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0"], "must be from 1 to 1024, not 0"),
        (["--processes", "two"], "must be a whole number"),
        (["--processes", "2", "--engine", "ray"], "--processes is for the engine inprocess"),
    ],
)
def test_a_number_of_processes_that_cannot_be_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["simulate", "--out", str(tmp_path / "run"), *words])
    except SystemExit as refusal:  # argparse
        code = int(str(refusal.code))
    assert code == REFUSED and said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("engines")
def test_quiet_prints_the_last_line_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert capfd.readouterr() == (f"{tmp_path / 'run' / 'summary.json'}\n", "")


@pytest.mark.usefixtures("engines")
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for more in ([], ["--resume"]):
        assert main(["simulate", "--out", str(tmp_path), *more]) == REFUSED
    assert main(["simulate", "--out", str(tmp_path / "notes.txt")]) == REFUSED
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("engines")
def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: RunConfig, listener: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_engine, "run_ray", interrupt)
    out = str(tmp_path / "a run")
    assert main(["simulate", "--engine", "ray", "--out", out]) == INTERRUPTED
    assert f"continue with: fedoel simulate --engine ray --out '{out}' --resume" in capsys.readouterr().err


def test_ctrl_c_before_there_is_a_run_offers_nothing_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: RunConfig, processes: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inprocess, "check", interrupt)
    assert main(["simulate", "--out", str(tmp_path / "run")]) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    assert not any(tmp_path.iterdir())
