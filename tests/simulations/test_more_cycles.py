"""A run that is given more cycles than it began with goes on as if it had had them from the start."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.journal import OPENED, RAISED
from fedoel.server import run_folder
from fedoel.server.app import the_same
from fedoel.server.current_version import roll_back
from fedoel.server.run_folder import own_folder, stored_config
from fedoel.server.run_location import locate
from fedoel.server.summary import FIRST_CYCLES, read_summary
from fedoel.server.verify import verify
from fedoel.server.version_list import VersionList
from fedoel.simulations.floor import FOLDER, tactics_only
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.page.watched import Watched

from .gates import OpenGate

GAMES: dict[str, Scalar] = {"server.public": "games", "games.rehearsal": 6, "games.gate": 6}
PROMPTS: dict[str, Scalar] = {"strategy.name": "secure-mean", "clients": 6}


def small(out: Path, cache: Path, settings: dict[str, Scalar], cycles: int) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 3, "games.families": "frozen-lake size=4 turns=10", "games.per-client": 4, "games.held-out": 8,
        "policy.backend": "tactics", "cache": str(cache), **settings, "out": str(out), "cycles": cycles,
    })  # fmt: skip


def play(config: RunConfig, gate: Any = OpenGate) -> Path:
    with own_folder(config):
        run_inprocess(config, make_gate=gate)
    return Path(config.out)


def more(config: RunConfig, cycles: int) -> RunConfig:
    return replace(config, cycles=cycles, resume=True)


def killed(path: Path, text: str) -> None:
    """Stand for a process that ends before it writes."""
    raise KeyboardInterrupt


def records(run: Path) -> list[Any]:
    return [replace(record, seconds={}) for record in read_summary(run).cycles]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunConfig:
    config = small(tmp_path_factory.mktemp("finished") / "run", cache, GAMES, 2)
    play(config)
    return config


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The configuration of a copy of a finished run of two cycles, to be changed."""
    return replace(finished, out=str(shutil.copytree(finished.out, tmp_path / "run")))


@pytest.mark.parametrize("settings", [GAMES, PROMPTS], ids=["games", "prompts and secure sums"])
def test_a_run_of_two_cycles_that_is_given_four_comes_to_the_same_versions(
    settings: dict[str, Scalar], tmp_path: Path, cache: Path
) -> None:
    gate = OpenGate if settings is GAMES else the_same
    short = small(tmp_path / "run", cache, settings, 2)
    for config in (short, more(short, 4), small(tmp_path / "whole", cache, settings, 4)):
        play(config, gate)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert len(records(run)) == 5 and records(run) == records(whole)
    assert [version.name for version in VersionList(locate(run)).versions] == [
        version.name for version in VersionList(locate(whole)).versions
    ]
    assert not verify(locate(run)).problems


def test_settings_journal_and_page_tell_of_the_new_number(config: RunConfig) -> None:
    before = (Path(config.out) / "journal.jsonl").read_bytes()
    assert Watched(Path(config.out)).view().finished
    run = play(more(config, 4))
    place = locate(run)
    assert stored_config(run) == replace(config, out=stored_config(run).out, cycles=4)
    assert (run / "journal.jsonl").read_bytes().startswith(before)
    (entry,) = place.journal().of_kind(RAISED)
    assert (entry.values["before"], entry.values["cycles"], entry.values["cycle"]) == (2, 4, 2)
    result = verify(place)
    assert not result.problems and "after cycle 2, the run was given 4 cycles instead of 2" in result.notes
    assert "settings: those that the run began with, with 4 cycles" in result.checked
    assert Watched(run).view().finished and read_summary(run).config["cycles"] == 4


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [("cycles", 3, "config.json: the settings"), ("seed", 9, "journal.jsonl, line N: more than the number")],
)
def test_settings_that_were_changed_behind_the_new_number_are_found(
    setting: str, value: int, problem: str, config: RunConfig
) -> None:
    run = play(more(config, 4))
    (run / "config.json").write_text(json.dumps({**json.loads((run / "config.json").read_bytes()), setting: value}))
    (entry,) = locate(run).journal().of_kind(RAISED)
    assert any(
        said.startswith(problem.replace("line N", f"line {entry.number}")) for said in verify(locate(run)).problems
    )


def test_a_run_gets_no_fewer_cycles_and_no_other_settings(config: RunConfig) -> None:
    before = {
        path: path.read_bytes() for path in Path(config.out).rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    for changed, why in (
        (more(config, 1), "holds a run of 2 cycles, and cycles is now 1: a run can get more cycles, not fewer"),
        (replace(more(config, 4), seed=9), "holds another run: seed was 0 and is now 9, cycles was 2 and is now 4"),
        (replace(config, cycles=4), "is not empty: continue it with --resume"),
    ):
        with pytest.raises(ConfigError, match=why):
            play(changed)
    after = {path: path.read_bytes() for path in before}
    assert after == before


def test_a_private_run_keeps_the_number_that_its_noise_was_computed_for(tmp_path: Path, cache: Path) -> None:
    private: dict[str, Scalar] = {
        **GAMES, "clients": 20, "strategy.name": "central-mean", "privacy.mechanism": "central", "privacy.epsilon": 20.0
    }  # fmt: skip
    config = small(tmp_path / "run", cache, private, 1)
    run_folder.prepare_folder(config)
    with pytest.raises(ConfigError, match=r"computed for cycles = 1 and epsilon 20: more cycles would cost more"):
        play(more(config, 2))
    assert stored_config(Path(config.out)).cycles == 1


def test_a_command_that_is_killed_between_journal_and_settings_is_repeated(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = locate(Path(config.out))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder, "replace_file", killed)
        play(more(config, 3))
    assert stored_config(place.run).cycles == 2 and not verify(place).problems
    play(more(config, 4))
    assert [entry.values["cycles"] for entry in place.journal().of_kind(RAISED)] == [3, 4]
    assert len(records(place.run)) == 5 and not verify(place).problems


def test_a_run_without_a_journal_begins_one_with_the_number_before(config: RunConfig) -> None:
    place = locate(Path(config.out))
    (place.run / "journal.jsonl").unlink()
    play(more(config, 3))
    assert [entry.kind for entry in place.journal().entries[:2]] == [OPENED, RAISED]
    assert len(records(place.run)) == 4 and not verify(place).problems


def test_a_finished_run_takes_an_operators_choice_in_the_cycles_that_it_is_given(config: RunConfig) -> None:
    place = locate(Path(config.out))
    chosen = roll_back(place).values["version"]
    play(more(config, 3))
    assert VersionList(place).versions[-1].parent == chosen and not verify(place).problems


def test_the_floor_without_a_language_model_goes_on_with_the_run(tmp_path: Path, cache: Path) -> None:
    for name, numbers in {"run": (1, 3), "whole": (3,)}.items():
        for cycles in numbers:
            run_inprocess(tactics_only(small(tmp_path / name, cache, GAMES, cycles)))
    assert records(tmp_path / "run" / FOLDER) == records(tmp_path / "whole" / FOLDER)


def test_a_long_run_that_goes_on_can_be_verified_at_every_moment(tmp_path: Path, cache: Path) -> None:
    """Its summary is not written after every cycle any more."""
    config = small(tmp_path / "run", cache, GAMES, FIRST_CYCLES + 2)
    run = play(config)

    def stop(event: Any) -> None:
        if getattr(event, "phase", "") == "rehearsal":
            raise InterruptedError

    longer = more(config, FIRST_CYCLES + 9)
    with own_folder(longer), pytest.raises(InterruptedError):
        run_inprocess(longer, stop, make_gate=OpenGate)
    assert len(read_summary(run).cycles) == FIRST_CYCLES + 3 and not verify(locate(run)).problems
