from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.settings import Setting, explain, read_toml, settings_of


def test_the_flat_form_holds_everything() -> None:
    config = RunConfig.from_flat({"games.per-client": 3, "seed": 9, "distil.learning-rate": 1})
    assert RunConfig.from_flat(config.to_flat()) == config
    assert (config.games.per_client, config.seed, config.distil.learning_rate) == (3, 9, 1.0)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("colour", 1, "unknown setting colour"),
        ("games.colour", 1, "unknown setting games.colour"),
        ("games.per_client", 1, "closest is games.per-client .an integer of at least 1; 6 by default.: Fresh"),
        ("clients", 0, "clients must be an integer of at least 1, not 0"),
        ("clients", 2.5, "clients must be an integer of at least 1, not 2.5"),
        ("clients", True, "clients must be an integer"),
        ("clipping-norm", 3, "closest is codec.clipping-norm "),
        ("strategy.exchanges", 9, "between 1 and 8, the number of clients, not 9"),
        ("privacy.epsilon", 1.0, "needs a privacy.mechanism"),
        ("name", 3, "name must be text, not 3"),
        ("games", 3, "games must be a table"),
        ("seed.deep", 3, "seed must be an integer"),
        ("strategy.fraction-train", 1.5, "must be a number between 1e-09 and 1, not 1.5"),
        ("distil.learning-rate", float("nan"), "must be a number above 0, not nan"),
        ("codec.clipping-norm", float("inf"), "above 0, not inf"),
        ("trial.clip", 0.0, "a number above 0 and at most 10, not 0.0"),
        ("trial.clip", 1e6, "a number above 0 and at most 10, not 1000000.0"),
        ("seed", -1, "an integer between 0 and 2147483647"),
        ("policy.precision", "fp8", "one of auto, fp32, bf16, not 'fp8'"),
        ("context.halvings", -1, "an integer between 0 and 64, not -1"),
        ("context.step", 1e308, "a number above 0 and at most 1000000, not 1e.308"),
        ("context.damping", 1e-320, "a number between 1e-06 and "),
        ("out", "a\0b", r"out must be text in UTF-8 without NUL characters, not 'a\\x00b'"),
        ("name", "\x1b[31mred", r"name must be text without control .*, not '\\x1b\[31mred'"),
        ("name", "red\u202eabc", r"name must be text without control .*, not 'red\\u202eabc'"),
        ("name", "two\nlines", r"name must be text without control .*, not 'two\\nlines'"),
        ("policy.base", os.fsdecode(b"\xff"), "policy.base must be text in UTF-8"),
    ],
)
def test_bad_settings_are_refused_by_name(key: str, value: Scalar, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RunConfig.from_flat({key: value})


@pytest.mark.parametrize("text", ["coin-collector", "coin-collector level turns=3", "coin-collector turns=0"])
def test_a_game_needs_settings_and_a_turn_limit(text: str) -> None:
    with pytest.raises(ConfigError):
        GameSpec.parse(text)


def test_a_setting_of_a_game_is_given_once() -> None:
    with pytest.raises(ConfigError, match="size is given twice"):
        GameSpec.parse("frozen-lake size=3 size=4 turns=5")


def test_a_game_is_written_as_it_is_read() -> None:
    spec = GameSpec.parse("cooking take=1 recipe=1 turns=9")
    assert GameSpec.parse(str(spec)) == spec
    assert spec.max_turns == 9


def test_a_setting_that_is_both_a_value_and_a_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="table of settings"):
        RunConfig.from_flat({"games": 3, "games.per-client": 1})


def test_the_flat_form_has_every_setting_and_survives_a_round_trip() -> None:
    flat = RunConfig().to_flat()
    other = {key: value + 1 if type(value) is int else value for key, value in flat.items()}
    assert RunConfig.from_flat(flat) == RunConfig()
    assert RunConfig.from_flat(other).to_flat() == other
    assert other != flat


def test_every_default_is_allowed_and_every_help_is_one_sentence() -> None:
    for name, setting in settings_of(RunConfig).items():
        assert setting.check(name, setting.default) == setting.default
        assert setting.help.endswith(".") and "|" not in setting.help


def test_a_setting_is_explained() -> None:
    assert explain(RunConfig, "distil.divergence") == (
        'distil.divergence (one of reverse-kl, forward-kl, jsd; "reverse-kl" by default): '
        "Divergence of the student from the teacher."
    )
    with pytest.raises(ConfigError, match=r"unknown setting distil\.step; the closest is distil\.steps "):
        explain(RunConfig, "distil.step")


@pytest.mark.parametrize(("value", "allowed"), [(0.0, False), (1e-9, True), (float("-inf"), False), (1, True)])
def test_a_bound_that_has_to_be_exceeded(value: float, allowed: bool) -> None:
    setting = Setting(1.0, above=0)
    if allowed:
        assert setting.check("x", value) == value
    else:
        with pytest.raises(ConfigError, match="x must be a number above 0"):
            setting.check("x", value)


@pytest.mark.parametrize("name", ["games.per-client", "clients", "distil.learning-rate", "seed", "privacy.population"])
@pytest.mark.parametrize("value", [10**13, -(10**13), int("9" * 400)])
def test_a_number_that_is_far_too_large_is_refused_and_not_printed_whole(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be .*, not -?[0-9.]+") as refusal:
        RunConfig.from_flat({name: value})
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("words", ["turns=" + "9" * 400, "turns=" + "9" * 5000, "turns=10001", "turns=--5", "turns=²"])
def test_a_turn_limit_that_is_no_number_of_turns_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="how long an episode may be, from 1 to 10,000 turns") as refusal:
        GameSpec.parse(f"frozen-lake {words}")
    assert len(str(refusal.value)) < 250


def test_a_toml_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "of-an-editor.toml"
    path.write_bytes("\ufeff".encode() + "clients = 3  # Geräte\r\n[games]\r\nper-client = 2\r\n".encode())
    assert read_toml(path) == {"clients": 3, "games": {"per-client": 2}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clients = " + "9" * 5000, "is not valid TOML: a number in it has thousands of digits"),
        ("clients = " + "[" * 5000, "is not valid TOML: brackets in it are nested too deeply"),
        ("clients = ", "is not valid TOML: Invalid value"),
    ],
)
def test_a_toml_file_that_python_cannot_read_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"mine.toml {says}"):
        read_toml(path)


def test_what_settings_there_are_is_worked_out_once() -> None:
    assert settings_of(RunConfig) is settings_of(RunConfig)  # every client of a simulation asks, several times
