"""Whole runs through the in-process engine, with the player that needs no model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, FedoelError, ModelError, VersionError
from fedoel.protocol.records.events import Event, Listener, PhaseStarted
from fedoel.protocol.records.json_codec import to_json
from fedoel.server.events import CYCLE_PHASES, FIRST_PHASES
from fedoel.server.registry import load_adapter
from fedoel.simulations.floor import add_tactics_floor
from fedoel.simulations.held_out import measure
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.summary import load_summary

SETTINGS: dict[str, Scalar] = {
    "name": "small",
    "clients": 3,
    "cycles": 2,
    "games.families": "orchard turns=3",
    "games.per-client": 3,
    "games.rehearsal": 4,
    "games.gate": 6,
    "games.held-out": 8,
    "games.transfer": "sokoban turns=5",
    "policy.backend": "tactics",
    "server.public": "games",
}
# Ten times as much work, so only where games that are compiled matter, or where a run must not be over too soon.
COMPILED: dict[str, Scalar] = {
    **SETTINGS, "games.families": "coin-collector level=102 turns=6", "games.transfer": "frozen-lake turns=6"
}  # fmt: skip
WAIT = 120
REPEATED = re.compile(r"(-1)?-half-[12]|-block-\d|-current-\d")  # in the names of phases
RATES = {"win_rate", "low", "high", "episodes", "score", "turns_per_win", "tokens_per_win"}


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(tmp_path / "run")})


@pytest.fixture(scope="module")
def compiled(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The configuration of a finished run with compiled games and the floor of tactics."""
    out = tmp_path_factory.mktemp("compiled")
    config = RunConfig.from_flat({**COMPILED, "cache": str(cache), "out": str(out)})
    run_inprocess(config)
    add_tactics_floor(config)
    return config


def summary(config: RunConfig) -> dict[str, Any]:
    """The summary without clocks and places."""
    found: dict[str, Any] = json.loads((Path(config.out) / "summary.json").read_text())
    for entry in found["cycles"]:
        entry.pop("seconds")
    for key in ("out", "resume"):
        found["config"].pop(key)
    return found


def test_a_summary_has_everything_and_a_second_run_says_the_same(compiled: RunConfig, tmp_path: Path) -> None:
    found = summary(compiled)
    assert set(found["floors"]) == {"random", "heuristic", "walkthrough", "tactics_only"}
    assert [entry["cycle"] for entry in found["cycles"]] == [0, 1, 2]
    written = load_summary(Path(compiled.out))
    for entry, timed in zip(found["cycles"], written.cycles, strict=True):
        elsewhere = entry["transfer"].values()
        for stats in (entry["held_out"], entry["teacher"], entry["families"]["coin-collector"], *elsewhere):
            assert set(stats) >= RATES
        assert {REPEATED.sub("", phase) for phase in timed.seconds} <= {*FIRST_PHASES, *CYCLE_PHASES}
        assert all(seconds >= 0 for seconds in timed.seconds.values())
        if entry["cycle"]:
            assert 0 < entry["uplink_bytes"] <= 4096
            assert entry["downlink_bytes"] > entry["adapter_bytes"]
    assert all(set(floor) >= RATES | {"families", "transfer"} for floor in found["floors"].values())
    assert len(found["floors"]["tactics_only"]["cycles"]) == 3
    assert found["floors"]["walkthrough"]["win_rate"] == 1.0
    again = replace(compiled, out=str(tmp_path / "again"))
    run_inprocess(again)
    add_tactics_floor(again)
    assert summary(again) == found


class Interrupted(Exception):
    """Somebody pulled the plug."""


def stop_in(cycle: int, phase: str) -> Listener:
    def listen(event: Event) -> None:
        if isinstance(event, PhaseStarted) and (event.cycle, event.phase) == (cycle, phase):
            raise Interrupted

    return listen


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole")
    config = RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(out)})
    run_inprocess(config)
    return summary(config)


@pytest.mark.parametrize(
    ("cycle", "phase"),
    [(0, "model"), (0, "games"), (0, "warm-start"), (0, "floors"), (0, "evaluate"), (0, "behaviour"), (1, "collect"),
     (1, "context"), (1, "teacher"), (1, "distil"), (1, "gate"), (1, "evaluate"), (1, "replay"), (2, "collect")],
)  # fmt: skip
def test_a_run_stopped_in_any_phase_goes_on_to_the_same_result(
    config: RunConfig, whole: dict[str, Any], cycle: int, phase: str
) -> None:
    with pytest.raises(Interrupted):
        run_inprocess(config, stop_in(cycle, phase))
    run_inprocess(replace(config, resume=True))
    assert summary(config) == whole


def test_a_run_with_compiled_games_goes_on_to_the_same_result(compiled: RunConfig, tmp_path: Path) -> None:
    stopped = replace(compiled, out=str(tmp_path / "stopped"))
    with pytest.raises(Interrupted):
        run_inprocess(stopped, stop_in(1, "context"))
    resumed = replace(stopped, resume=True)
    run_inprocess(resumed)
    add_tactics_floor(resumed)
    assert summary(resumed) == summary(compiled)


@pytest.fixture(scope="module")
def in_parts(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("in-parts")
    config = RunConfig.from_flat({**SETTINGS, "strategy.exchanges": 3, "cache": str(cache), "out": str(out)})
    run_inprocess(config)
    return summary(config)


def test_exchanges_share_a_cycle_without_more_play_or_traffic(whole: dict[str, Any], in_parts: dict[str, Any]) -> None:
    for one, several in zip(whole["cycles"][1:], in_parts["cycles"][1:], strict=True):
        assert (several["accepted"], several["uplink_bytes"]) == (one["accepted"], one["uplink_bytes"])
        assert several["lessons"] != one["lessons"]
        # A later part of the cohort is sent the context too.
        assert one["downlink_bytes"] < several["downlink_bytes"] < one["downlink_bytes"] + 4 * DIMENSION


@pytest.mark.parametrize("phase", ["context", "collect-2", "context-2", "collect-3", "context-3", "teacher"])
def test_a_run_stopped_between_exchanges_goes_on_to_the_same_result(
    config: RunConfig, in_parts: dict[str, Any], phase: str
) -> None:
    config = replace(config, strategy=replace(config.strategy, exchanges=3))
    with pytest.raises(Interrupted):
        run_inprocess(config, stop_in(1, phase))
    run_inprocess(replace(config, resume=True))
    assert summary(config) == in_parts


def simulate(config: RunConfig, *words: str) -> subprocess.Popen[str]:
    """The command, as a process: it has to have nothing but what a scenario file says."""
    scenario = Path(config.out).with_suffix(".toml")
    scenario.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in COMPILED.items()))
    code = "import sys; from fedoel.cli.main import main; sys.exit(main())"
    call = [sys.executable, "-c", code, "simulate", str(scenario), f"--out={config.out}", f"--set=cache={config.cache}"]
    return subprocess.Popen([*call, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "phase", "code"), [(signal.SIGKILL, "evaluate", -signal.SIGKILL), (signal.SIGINT, "floors", 130)]
)
def test_a_killed_process_resumes(
    config: RunConfig, compiled: RunConfig, how: signal.Signals, phase: str, code: int
) -> None:
    process = simulate(config)
    events = Path(config.out) / "events.jsonl"
    deadline = time.monotonic() + WAIT
    while not (events.exists() and f'"{phase}"' in events.read_text()):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, how)
    said = process.communicate(timeout=WAIT)[1]
    assert process.returncode == code, said
    assert how is signal.SIGKILL or "--resume" in said
    again = simulate(config, "--resume")
    said = again.communicate(timeout=WAIT)[1]
    assert again.returncode == 0, said
    assert summary(config) == summary(compiled)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"games.families": "chess turns=4"}, ConfigError, "chess"),
        ({"games.families": "coin-collector colour=4 turns=4"}, ConfigError, "colour"),
        ({"games.families": "coin-collector level=999999 turns=4"}, ConfigError, "level"),
        ({"games.families": ""}, ConfigError, "at least one game"),
        ({"games.partition": "by-mood"}, ConfigError, "partition"),
        ({"clients": 200_000}, ConfigError, "more clients than seeds"),
        ({"games.per-client": 9_000}, ConfigError, "games of a client, and there are 10,000"),
        ({"games.per-client": 10**11}, ConfigError, "games of a client, and there are 10,000"),
        ({"clients": 10**11}, ConfigError, "more clients than seeds"),
        ({"strategy.name": "astrology"}, ConfigError, "astrology"),
        ({"policy.backend": "magic"}, ConfigError, "magic"),
        ({"codec.name": "prefix"}, ConfigError, "prefix"),
        ({"strategy.exchanges": 4}, ConfigError, r"strategy\.exchanges must lie between 1 and 3"),
        ({"clients": 0}, ConfigError, "clients must be an integer of at least 1"),
        ({"clinets": 3}, ConfigError, "unknown setting clinets"),
        ({"games.colour": 3}, ConfigError, r"unknown setting games\.colour"),
        ({"policy.backend": "torch", "policy.base": "/nowhere/model.gguf"}, ModelError, "no model at"),
        ({"out": "relative"}, ConfigError, "absolute"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(
    tmp_path: Path, change: dict[str, Scalar], error: type[FedoelError], says: str
) -> None:
    places = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    with pytest.raises(error, match=says):
        run_inprocess(RunConfig.from_flat({**SETTINGS, **places, **change}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("policy.backend=magic", "policy.backend"),
        ("games.partition=dirichlet:nan", "unknown partition"),
        ("cache={file}", "cache: {file} is not a folder"),
        ("games.families=", "games.families must name at least one game, such as 'tidy things=1 turns=6', each"),
        ("clients=100000000", "there are private games for 100,000 clients, and not for 100,000,000"),
        ("privacy.keys={file}", "leave it out of a simulation"),
    ],
)
def test_a_refused_command_leaves_no_folder_so_that_it_can_be_put_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, says: str
) -> None:
    file, out = tmp_path / "file", tmp_path / "run"
    file.touch()
    settings = ("policy.backend=tactics", "games.families=frozen-lake turns=4", setting.format(file=file))
    assert main(["simulate", f"--out={out}", *(f"--set={each}" for each in settings)]) == REFUSED
    assert says.format(file=file) in capsys.readouterr().err
    assert not out.exists()


def test_a_run_without_a_language_model_can_be_evaluated_and_watched(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run_inprocess(replace(config, cycles=1))
    # As the verb `simulate` does, so that the run says how it was started.
    (Path(config.out) / "config.json").write_text(json.dumps(config.to_flat()))
    last = summary(config)["cycles"][-1]
    measured = measure(config, Path(config.out) / "versions" / last["version"])
    assert {family: to_json(stats) for family, stats in measured.items()} == last["families"]
    add_tactics_floor(config)
    assert main(["play", "--run", config.out]) == 0
    assert last["version"] in capsys.readouterr().out


def test_versions_can_be_loaded_and_changed_ones_cannot(config: RunConfig) -> None:
    run_inprocess(replace(config, cycles=1))
    last = summary(config)["cycles"][-1]["version"]
    folder = Path(config.out) / "versions" / last
    version, adapter = load_adapter(folder)
    assert version == last
    from safetensors.numpy import save_file

    save_file({"weights": adapter["weights"] + np.float32(0.5)}, str(folder / "adapter_model.safetensors"))
    with pytest.raises(VersionError, match="changed"):
        load_adapter(folder)
