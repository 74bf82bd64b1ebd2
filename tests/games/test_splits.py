"""Seed ranges of splits and clients are disjoint."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedoel.games.splits import (
    CLIENTS,
    PUBLIC_GAMES,
    SECRET_GAMES,
    Split,
    assert_disjoint,
    fingerprint,
    for_split,
    game_seed,
    secret_seed,
)
from fedoel.games.textworld import compiled
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GAMES_PER_CLIENT, GameSpec

COIN = GameSpec.parse("coin-collector level=102 turns=6")
COOKING = GameSpec.parse("cooking recipe=1 take=1 turns=10")
PUBLIC = [split for split in Split if split is not Split.PRIVATE]

privates = st.tuples(st.just(Split.PRIVATE), st.integers(0, GAMES_PER_CLIENT - 1), st.integers(0, CLIENTS - 1))
publics = st.tuples(st.sampled_from(PUBLIC), st.integers(0, PUBLIC_GAMES - 1), st.just(0))
draws = privates | publics


@given(draws, draws)
def test_different_games_have_different_seeds(a: tuple[Split, int, int], b: tuple[Split, int, int]) -> None:
    assume(a != b)
    assert game_seed(*a) != game_seed(*b)


@given(draws)
def test_seeds_fit_into_a_signed_32_bit_number(draw: tuple[Split, int, int]) -> None:
    assert 0 <= game_seed(*draw) < 2**31


def test_ranges_do_not_overlap() -> None:
    ranges = sorted((split.value, split.value + PUBLIC_GAMES) for split in PUBLIC)
    ranges.insert(0, (0, CLIENTS * GAMES_PER_CLIENT))
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="more clients than seeds"):
        game_seed(Split.PRIVATE, 0, CLIENTS)
    for split, index, client in [
        (Split.PRIVATE, GAMES_PER_CLIENT, 0),
        (Split.PRIVATE, -1, 0),
        (Split.PRIVATE, 0, -1),
        (Split.GATE, PUBLIC_GAMES, 0),
        (Split.GATE, 0, 1),
    ]:
        with pytest.raises(ConfigError):
            game_seed(split, index, client)


def test_cooking_is_also_split_by_food() -> None:
    splits = [dict(for_split(COOKING, split).settings)["split"] for split in Split]
    assert splits == ["train", "train", "valid", "test"]
    assert for_split(COIN, Split.GATE) == COIN
    assert for_split(for_split(COOKING, Split.GATE), Split.HELD_OUT) == for_split(COOKING, Split.HELD_OUT)


def test_a_fingerprint_identifies_content() -> None:
    longer = GameSpec.parse("coin-collector level=102 turns=60")
    explicit = GameSpec.parse("cooking recipe=1 take=1 go=1 cut=0 turns=3")
    assert fingerprint(COIN, 1) == fingerprint(longer, 1) != fingerprint(COIN, 2)
    assert fingerprint(COOKING, 1) == fingerprint(explicit, 1) != fingerprint(COIN, 1)


def test_training_on_a_held_out_game_is_found() -> None:
    trained = [(COIN, game_seed(Split.PRIVATE, index, 3)) for index in range(20)]
    held_out = [(COIN, game_seed(Split.HELD_OUT, index)) for index in range(20)]
    assert_disjoint(trained, held_out)
    with pytest.raises(GameError, match="was trained on"):
        assert_disjoint([*trained, held_out[7]], held_out)


def test_fingerprints_of_other_games_do_not_need_textworld(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise GameError("not installed")

    monkeypatch.setattr(compiled, "_textworld_version", missing)
    lake = GameSpec.parse("frozen-lake size=3 turns=6")
    assert_disjoint([(lake, game_seed(Split.GATE, 1))], [(lake, game_seed(Split.HELD_OUT, 1))])


@given(draws, st.integers(0, 2**64 - 1), st.integers(1, 1000), st.integers(0, 1000))
def test_a_secret_seed_is_no_other_games_and_fits_too(
    other: tuple[Split, int, int], secret: int, cycle: int, index: int
) -> None:
    seed = secret_seed(secret, cycle, index)
    assert seed in SECRET_GAMES and seed < 2**31 - 1
    assert game_seed(*other) not in SECRET_GAMES
    assert len({secret_seed(secret, c, index) // GAMES_PER_CLIENT for c in range(5)}) == 1
