"""Experience that rewards a red-line command does not get it into a version, whatever the candidate wins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.families import family_of
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError, VersionError
from fedoel.protocol.situation import Memory
from fedoel.server.app import prepare
from fedoel.server.current_version import promote
from fedoel.server.registry import load_adapter
from fedoel.server.run_location import RunLocation
from fedoel.server.version_list import VersionList
from fedoel.simulations.inprocess import check, run_inprocess
from fedoel.simulations.prompts import with_pack
from fedoel.simulations.scenario import load_scenario
from fedoel.strategies.experience import ExperienceStrategy

WORLD = '''
from fedoel.games.families import Family
from fedoel.games.game import Frame

COMMANDS = ("open the valve", "close the valve", "examine the gauge")

class Plant:
    """Opening the valve wins, and closing it loses."""

    def start(self, seed):
        self.pressure = seed % 997
        return self.frame("")

    def act(self, command):
        return self.frame(command)

    def walkthrough(self):
        return COMMANDS[:1]

    def close(self):
        pass

    def frame(self, command):
        won, lost = command == COMMANDS[0], command == COMMANDS[1]
        text = f"-= Hall =-\\nThe gauge says {self.pressure}."
        return Frame(text, "Raise the output.", COMMANDS, float(won), 1.0, won, lost)

PLANT = Family({}, lambda family, settings, cache: Plant())
GUARDED = Family({}, lambda family, settings, cache: Plant(), red_lines=("Open  the valve", "explode"))
'''
COMMANDS = ("open the valve", "close the valve", "examine the gauge")


@pytest.fixture(params=["games", "prompts"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunConfig]:
    (tmp_path / "plant_world.py").write_text(WORLD)
    monkeypatch.syspath_prepend(tmp_path)
    yield RunConfig.from_flat({
        "clients": 8, "cycles": 2, "games.families": "plant_world:PLANT turns=3", "games.per-client": 4,
        "games.rehearsal": 20, "games.gate": 24, "games.held-out": 4, "policy.backend": "tactics", "server.pack": 24,
        "server.public": request.param, "trial.share": 1.0, "out": str(tmp_path / "run"), "cache": str(tmp_path / "c"),
    })  # fmt: skip
    family_of.cache_clear()


def with_red_lines(config: RunConfig, *lines: str, **settings: Any) -> RunConfig:
    path = Path(config.out).parent / "red-lines.txt"
    path.write_text("\n".join(lines))
    return replace(config, server=replace(config.server, red_lines=str(path), **settings))


def cycles(config: RunConfig) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((Path(config.out) / "summary.json").read_text())["cycles"]
    return entries


def chance_to_open(config: RunConfig) -> float:
    """How likely the version after the last cycle opens the valve."""
    name, adapter = load_adapter(Path(config.out) / "versions" / cycles(config)[-1]["version"])
    situation = Memory("Raise the output.", 3).see("-= Hall =-\nThe gauge says 1.", COMMANDS, 0)
    return float(np.exp(TacticsPolicy.from_adapter(adapter, name).score([situation])[0][0]))


def test_a_rewarded_red_line_is_learned_without_the_gate_and_refused_with_it(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inprocess(config)
    assert "promoted" in {entry["decision"] for entry in cycles(config)} and chance_to_open(config) > 0.5

    def nobody(*arguments: object) -> None:
        raise AssertionError("no device may be asked to try such a candidate")

    monkeypatch.setattr(ExperienceStrategy, "trial", nobody)
    guarded = with_red_lines(replace(config, out=str(tmp_path / "guarded")), "Open the valve", "explode")
    run_inprocess(guarded)
    first, *later = cycles(guarded)
    assert [entry["decision"] for entry in later] == ["rejected"] * 2
    assert all("red line 'open the valve': probability 33.3% ->" in entry["reason"] for entry in later)
    assert {entry["version"] for entry in later} == {first["version"]}
    assert chance_to_open(guarded) == pytest.approx(1 / 3) and later[0]["gate"]["candidate"] is None
    assert (Path(guarded.out) / "checkpoints" / "cycle-001" / "red-lines.npz").exists()
    place = RunLocation(Path(guarded.out), Path(guarded.out) / "keys")
    refused = VersionList(place).versions[-1]
    with pytest.raises(VersionError, match=r"red line .*; add --anyway if that is meant"):
        promote(place, refused.name)
    run_inprocess(replace(guarded, resume=True))
    assert [entry["reason"] for entry in cycles(guarded)[1:]] == [entry["reason"] for entry in later]
    assert promote(place, refused.name, anyway=True).values["version"] == refused.name


def in_a_guarded_world(config: RunConfig) -> RunConfig:
    """The same run in the same world, which now declares that the valve must stay closed."""
    return replace(config, games=replace(config.games, families="plant_world:GUARDED turns=3"))


def test_a_rewarded_red_line_of_the_world_is_refused_without_a_word_from_the_operator(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*arguments: object) -> None:
        raise AssertionError("no device may be asked to try such a candidate")

    monkeypatch.setattr(ExperienceStrategy, "trial", nobody)
    guarded = in_a_guarded_world(config)
    assert not guarded.server.red_lines
    run_inprocess(guarded)
    first, *later = cycles(guarded)
    assert [entry["decision"] for entry in later] == ["rejected"] * 2
    assert all("red line 'open the valve': probability 33.3% ->" in entry["reason"] for entry in later)
    assert {entry["version"] for entry in later} == {first["version"]}
    assert chance_to_open(guarded) == pytest.approx(1 / 3)


def test_the_operators_red_lines_and_the_worlds_are_joined(config: RunConfig, cache: Path) -> None:
    guarded = with_red_lines(in_a_guarded_world(config), "explode", "close the valve")
    _, server = prepare(with_pack(guarded, cache), cache)
    assert server.run.red_lines and server.run.red_lines.lines == ("explode", "close the valve", "open the valve")
    _, server = prepare(with_pack(config, cache), cache)
    assert server.run.red_lines is None


def test_other_red_lines_stop_nothing(config: RunConfig) -> None:
    run_inprocess(with_red_lines(config, "close *", "explode"))
    assert "promoted" in {entry["decision"] for entry in cycles(config)} and chance_to_open(config) > 0.5


def test_a_wide_tolerance_lets_a_candidate_pass(config: RunConfig) -> None:
    run_inprocess(with_red_lines(config, "open the valve", red_line_tolerance=1.0))
    assert "promoted" in {entry["decision"] for entry in cycles(config)}


def test_red_lines_that_no_prompt_can_watch_are_refused_before_the_run(config: RunConfig) -> None:
    if config.server.public == "games":
        with pytest.raises(ConfigError, match=r"server\.red-lines: /nowhere cannot be read"):
            check(replace(config, server=replace(config.server, red_lines="/nowhere")))
        return
    with pytest.raises(ConfigError, match=r"no public prompt lists a command that matches 'launch \*'"):
        run_inprocess(with_red_lines(config, "launch *"))
    assert not Path(config.out).exists()


def test_red_lines_are_found_beside_the_scenario_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[server]\nred-lines = "lines.txt"\n')
    assert load_scenario(str(tmp_path / "mine.toml")).server.red_lines == str(tmp_path / "lines.txt")
