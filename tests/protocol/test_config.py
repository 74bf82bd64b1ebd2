from __future__ import annotations

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec


def test_the_flat_form_holds_everything() -> None:
    config = RunConfig.from_flat({"games.per-client": 3, "seed": 9, "distil.learning-rate": 1})
    assert RunConfig.from_flat(config.to_flat()) == config
    assert (config.games.per_client, config.seed, config.distil.learning_rate) == (3, 9, 1.0)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("colour", 1, "unknown setting colour"),
        ("games.colour", 1, "unknown setting games.colour"),
        ("games.per_client", 1, "per-client"),
        ("clients", 0, "clients must be more than zero"),
        ("clients", 2.5, "clients must be int"),
        ("clients", True, "clients must be int"),
        ("name", 3, "name must be str"),
        ("games", 3, "must be a table"),
        ("seed.deep", 3, "seed must be int"),
        ("strategy.fraction-train", 1.5, "between"),
        ("distil.learning-rate", float("nan"), "more than zero"),
        ("codec.clipping-norm", float("inf"), "finite"),
        ("seed", -1, "between"),
        ("policy.precision", "fp8", "one of auto, fp32, bf16, not 'fp8'"),
    ],
)
def test_bad_settings_are_refused_by_name(key: str, value: Scalar, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RunConfig.from_flat({key: value})


@pytest.mark.parametrize("text", ["coin-collector", "coin-collector level turns=3", "coin-collector turns=0"])
def test_a_game_needs_settings_and_a_turn_limit(text: str) -> None:
    with pytest.raises(ConfigError):
        GameSpec.parse(text)


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
