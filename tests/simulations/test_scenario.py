"""Scenario files: built in and one's own, with overrides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.cli.simulate import SCALES
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.set_option import parse_setting
from fedoel.simulations.scenario import BUILT_IN, load_scenario


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_scenarios_load_and_name_games(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_scenario(name, {"seed": 5})
    assert config.name == name
    assert config.out == str(tmp_path / "runs" / f"{name}-5")
    assert specs_from_text(config.games.families)
    # Run configs travel as command-line arguments of the Flower CLI.
    assert "\n" not in config.games.families


def test_scales_are_the_built_in_scenarios() -> None:
    assert SCALES == BUILT_IN


def test_a_file_gives_its_name_and_its_settings_and_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('clients = 4\nout = "~/x"\n[games]\nper-client = 9\n')
    config = load_scenario(str(path), {"clients": 5, "distil.steps": 7, "games.per-client": 2})
    assert (config.name, config.clients, config.distil.steps, config.games.per_client) == ("mine", 5, 7, 2)
    assert config.out == str(Path.home() / "x")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "/etc", "n" * 61])
def test_a_name_that_is_no_folder_s_is_refused_where_it_makes_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name must be one of a folder, of 1 to 60 characters"):
        load_scenario("quick", {"name": name})
    assert load_scenario("quick", {"name": name, "out": str(tmp_path)}).name == name


def test_a_name_that_would_change_what_a_terminal_shows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(r'name = "\u001b[31mred\u202eabc"')
    with pytest.raises(ConfigError, match=r"mine\.toml: name must be text without control") as refusal:
        load_scenario(str(path))
    assert str(refusal.value).isprintable()
    with pytest.raises(ConfigError, match=r"^--set .*name must be text without control"):
        parse_setting("name=red\u202eabc")
    assert load_scenario("quick", {"name": "größe 1"}).name == "größe 1"


def test_a_working_folder_whose_name_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="is not in UTF-8: work in another folder"):
        load_scenario("quick")


def test_a_pack_is_found_from_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "mine.toml"
    path.write_text('[server]\npublic = "prompts"\nprompts = "packs/a.jsonl"\n')
    assert load_scenario("../mine.toml").server.prompts == str(tmp_path / "here" / ".." / "packs" / "a.jsonl")
    assert load_scenario(str(path)).server.prompts == str(tmp_path / "packs" / "a.jsonl")
    overridden = load_scenario(str(path), {"server.prompts": "b.jsonl"})
    assert overridden.server.prompts == str(tmp_path / "here" / "b.jsonl")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("clients = \n", "line 1"),
        ("clinets = 3\n", "unknown setting clinets"),
        ("clients = 0\n", "clients must be an integer of at least 1"),
        ("games = 3\n", "table"),
        ('"games.held-out" = 2\n', r"write it in the table \[games\] as held-out = 2$"),
        ('"policy.base" = "m"\n', r'write it in the table \[policy\] as base = "m"$'),
        ('"games.held-out" = [2]\n', r"write it in the table \[games\] as held-out = \.\.\.$"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=says) as refusal:
        load_scenario(str(path))
    assert "wrong.toml" in str(refusal.value)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigError, match="UTF-8"):
        load_scenario(str(path))


def test_a_missing_scenario_lists_the_built_in_ones() -> None:
    with pytest.raises(ConfigError, match="quick, words, standard, full"):
        load_scenario("nowhere.toml")


def test_a_scenario_from_a_pipe_is_refused_with_what_to_do(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for pipe in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(ConfigError, match=r"is a pipe or a device, which can be read once only.*: write it into a"):
            load_scenario(str(pipe))
    with pytest.raises(ConfigError, match="give the path of a TOML file"):
        load_scenario(str(tmp_path))


def test_settings_are_toml_or_text() -> None:
    assert parse_setting("games.per-client=4") == ("games.per-client", 4)
    assert parse_setting("distil.learning-rate = 1e-4") == ("distil.learning-rate", 1e-4)
    assert parse_setting("strategy.name=krum") == ("strategy.name", "krum")
    assert parse_setting("rollout.stages=0.5") == ("rollout.stages", "0.5")
    assert parse_setting("games.families=coin-collector level=1 turns=3")[1] == "coin-collector level=1 turns=3"
    for wrong in ("games", "=4", "clients=[1]"):
        with pytest.raises(ConfigError, match="--set"):
            parse_setting(wrong)
    with pytest.raises(ConfigError, match="seed is a setting"):
        load_scenario("quick", {"seed": 1, "seed.more": 2})


def test_a_number_of_thousands_of_digits_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^--set games.per-client: .* is too long") as refusal:
        parse_setting(f"games.per-client={'9' * 5000}")
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("games.per-client=0", "games.per-client must be an integer of at least 1, not 0"),
        ("games.per-clint=4", "unknown setting games.per-clint; the closest is games.per-client"),
        ("distil.divergence=js", "distil.divergence must be one of"),
        ("strategy.exchanges=9", "strategy.exchanges must lie between 1 and 8"),
    ],
)
def test_a_bad_setting_of_the_command_line_is_not_blamed_on_the_file(
    setting: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["simulate", "quick", "--out", str(tmp_path / "run"), "--set", setting]) == REFUSED
    error = capsys.readouterr().err
    assert says in error and "quick.toml" not in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())
    assert main(["simulate", "quick", "--clients", "0"]) == REFUSED
    assert capsys.readouterr().err == "fedoel: clients must be an integer of at least 1, not 0\n"


def test_what_is_wrong_in_the_file_too_is_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("clients = 0\n")
    with pytest.raises(ConfigError, match=r"mine.toml: clients must be"):
        load_scenario(str(path), {"games.per-client": 3})
