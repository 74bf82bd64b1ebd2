"""One small game of every family, and a cache that all tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.games.express import missing
from fedoel.games.families import build_game
from fedoel.games.game import Game
from fedoel.protocol.play import GameSpec

SPECS = tuple(
    GameSpec.parse(text)
    for text in (
        "coin-collector level=102 turns=6",
        "treasure-hunter level=5 turns=10",
        "cooking recipe=1 take=1 split=train turns=10",
        "frozen-lake size=4 split=train turns=12",
        "sokoban split=train turns=5",
        "orchard turns=6",
        "mirror-orchard trees=2 turns=6",
        "tidy things=2 rooms=2 split=train turns=16",
        "assistant commands=8 split=train turns=2",
        "reasoning task=needle turns=2",
        "coin-collector level=102 renamed=1 turns=6",
        "treasure-hunter level=5 renamed=1 turns=10",
        "cooking recipe=1 take=1 renamed=1 split=train turns=10",
        "frozen-lake size=4 renamed=1 split=train turns=12",
        "sokoban renamed=1 split=train turns=5",
        "orchard renamed=1 turns=6",
        "tidy things=2 rooms=2 renamed=1 split=train turns=16",
        *([] if missing() else ["express kind=twc split=train turns=12", "express renamed=1 split=train turns=12"]),
    )
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


@pytest.fixture(params=SPECS, ids=lambda spec: f"{spec.family}{' renamed' * dict(spec.settings).get('renamed', 0)}")
def spec(request: pytest.FixtureRequest) -> GameSpec:
    spec = request.param
    assert isinstance(spec, GameSpec)
    return spec


@pytest.fixture
def game(spec: GameSpec, cache: Path) -> Iterator[Game]:
    game = build_game(spec, cache)
    yield game
    game.close()
