"""Making a fleet: the run that it is to start, and the prompts of a server that has no games."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.protocol.prompt_pack import read_pack
from fedoel.server.app import check
from fedoel.server.operate.folder import ServerFolder, read_run
from fedoel.server.operate.setup import RUN
from fedoel.server.operate.start import families_without_prompts


def init(folder: Path, *given: str) -> int:
    settings = [word for setting in ("server.pack=32", *given) for word in ("--set", setting)]
    return main(["server", "init", str(folder), "--host", "fleet.example.org", *settings])


def test_a_fleet_comes_with_prompts_of_its_games_and_can_start(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "fleet") == 0
    file = tmp_path / "fleet" / "pack.jsonl"
    assert f"the server has no games, but 32 prompts of frozen-lake, sokoban: {file}" in capsys.readouterr().out
    pack, config = read_pack(file), read_run(ServerFolder(tmp_path / "fleet"))
    assert (len(pack.prompts), pack.families) == (32, ("frozen-lake", "sokoban"))
    assert (config.server.public, config.server.prompts) == ("prompts", str(file))
    assert (config.games.families, config.strategy.patience) == (RUN["games.families"], RUN["strategy.patience"])
    check(replace(config, clients=8), cache)


def test_the_prompts_are_of_the_families_that_are_given(tmp_path: Path) -> None:
    assert init(tmp_path / "fleet", "games.families=orchard turns=6", "cycles=1") == 0
    assert read_pack(tmp_path / "fleet" / "pack.jsonl").families == ("orchard",)
    file = tmp_path / "fleet" / "run.toml"
    run = tomllib.loads(file.read_text())
    assert (run["cycles"], run["games"]["families"], run["server"]["prompts"]) == (1, "orchard turns=6", "pack.jsonl")
    assert families_without_prompts(read_run(ServerFolder(file.parent))) == []
    file.write_text(file.read_text().replace("orchard turns=6", "orchard turns=6; sokoban turns=5"))
    assert families_without_prompts(read_run(ServerFolder(file.parent))) == ["sokoban"]


def test_a_server_with_games_or_with_a_pack_of_its_own_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path / "games", "server.public=games") == 0
    assert init(tmp_path / "pack", "server.prompts=mine.jsonl") == 0
    games, pack = (read_run(ServerFolder(tmp_path / name)).server for name in ("games", "pack"))
    assert (games.public, games.prompts, pack.prompts) == ("games", "", str(tmp_path / "mine.jsonl"))
    assert not list(tmp_path.rglob("pack.jsonl"))


@pytest.mark.parametrize("families", ["nowhere:LAKE turns=3", "frozen-lake size=3 turns=6"])
def test_where_the_games_are_missing_a_sentence_says_what_to_do(
    families: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ":" not in families:
        monkeypatch.setitem(sys.modules, "fedoel.games.make_prompts", None)
    assert init(tmp_path / "fleet", f"games.families={families}") == REFUSED
    (said,) = capsys.readouterr().err.splitlines()
    assert "`fedoel prompts make`, and give --set server.prompts=FILE; or --set server.public=games" in said
    assert not (tmp_path / "fleet").exists()


def test_settings_of_a_fleet_that_is_there_are_changed_in_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "fleet") == 0
    before = {name: (tmp_path / "fleet" / name).read_bytes() for name in ("run.toml", "pack.jsonl")}
    assert init(tmp_path / "fleet", "cycles=9") == REFUSED
    assert f"change them in {tmp_path / 'fleet' / 'run.toml'}" in capsys.readouterr().err
    assert main(["server", "init", str(tmp_path / "fleet"), "--host", "new.example.org"]) == 0
    assert {name: (tmp_path / "fleet" / name).read_bytes() for name in before} == before


def test_a_setting_that_is_none_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "fleet", "cycels=9") == REFUSED
    assert "unknown setting cycels" in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()
