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
        ("strategy.fraction-train", 1.5, "between"),
        ("distil.learning-rate", float("nan"), "more than zero"),
        ("seed", -1, "between"),
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
