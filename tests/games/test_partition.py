"""Client games are a pure function of their arguments, new in every cycle, and as heterogeneous as configured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.games.partition import client_games, games_per_client, mixtures
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import specs_from_text

SPECS = specs_from_text(
    "coin-collector level=102 turns=6; coin-collector level=3 turns=6; treasure-hunter level=5 turns=10;"
    " cooking recipe=1 take=1 turns=10"
)
partitions = st.sampled_from(["iid", "by-family", "dirichlet:0.1", "dirichlet:10"])


@given(partitions, st.integers(0, 2**31), st.integers(0, 6))
def test_client_games_are_a_pure_function(partition: str, seed: int, client: int) -> None:
    first = client_games(SPECS, client, 7, 5, 2, partition, seed)
    assert first == client_games(SPECS, client, 7, 5, 2, partition, seed)
    assert len(first) == 5


@given(partitions, st.integers(0, 2**31))
@settings(deadline=None)
def test_no_game_is_played_twice(partition: str, seed: int) -> None:
    game_seeds = [
        game_seed
        for client in range(4)
        for cycle in range(5)
        for _, game_seed in client_games(SPECS, client, 4, 6, cycle, partition, seed)
    ]
    assert len(set(game_seeds)) == len(game_seeds)


def test_cooking_uses_training_foods() -> None:
    games = client_games(SPECS[3:], 0, 1, 3, 0, "iid", 0)
    assert all(dict(spec.settings)["split"] == "train" for spec, _ in games)


@pytest.mark.parametrize("partition", ["iid", "by-family", "dirichlet:0.3"])
def test_mixtures_are_distributions(partition: str) -> None:
    weights = mixtures(SPECS, 9, partition, 0)
    assert weights.shape == (9, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights >= 0).all()


def test_by_family_assigns_each_client_one_family() -> None:
    for client, family in enumerate(["coin-collector", "treasure-hunter", "cooking", "coin-collector"]):
        games = client_games(SPECS, client, 4, 20, 0, "by-family", 0)
        assert {spec.family for spec, _ in games} == {family}


def test_a_small_alpha_makes_clients_differ() -> None:
    narrow, wide = (mixtures(SPECS, 200, f"dirichlet:{alpha}", 0).max(axis=1).mean() for alpha in (0.1, 100))
    assert narrow > 0.8
    assert wide < 0.4


@pytest.mark.parametrize("partition", ["", "random", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1"])
def test_an_unknown_partition_is_refused(partition: str) -> None:
    with pytest.raises(ConfigError, match="known are iid, by-family"):
        client_games(SPECS, 0, 1, 1, 0, partition, 0)


def test_numbers_out_of_range_are_refused() -> None:
    for client, clients, count, cycle in [(2, 2, 1, 0), (-1, 2, 1, 0), (0, 0, 1, 0), (0, 1, -1, 0), (0, 1, 1, -1)]:
        with pytest.raises(ConfigError):
            client_games(SPECS, client, clients, count, cycle, "iid", 0)
    with pytest.raises(ConfigError):
        client_games((), 0, 1, 1, 0, "iid", 0)
    with pytest.raises(ConfigError, match="private game"):
        client_games(SPECS, 0, 1, 5_000, 2, "iid", 0)


def test_games_per_client_have_the_configured_mean_and_spread_with_sigma() -> None:
    assert games_per_client(6, 4, "equal", 0) == [6, 6, 6, 6]
    narrow, wide = (np.array(games_per_client(60, 4_000, f"lognormal:{sigma}", 0)) for sigma in (0.1, 1.0))
    assert narrow.mean() == pytest.approx(60, rel=0.02) and wide.mean() == pytest.approx(60, rel=0.06)
    assert narrow.std() < 10 < 40 < wide.std() and wide.min() >= 1


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_games_per_client_do_not_depend_on_later_clients(seed: int, clients: int) -> None:
    fewer = games_per_client(6, clients, "lognormal:1", seed)
    assert fewer == games_per_client(6, clients + 1, "lognormal:1", seed)[:clients]


@pytest.mark.parametrize("text", ["", "uneven", "lognormal", "lognormal:0", "lognormal:x", "equal:1"])
def test_unknown_amounts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="known are equal, lognormal"):
        games_per_client(6, 3, text, 0)
