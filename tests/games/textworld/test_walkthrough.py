"""Simulating a walkthrough in the game's logic gives the same game as TextWorld's own interpreter-based method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedoel.games.families import settings_of
from fedoel.games.textworld import generate
from fedoel.protocol.play import GameSpec


@pytest.mark.parametrize(
    "game",
    [
        "coin-collector level=103 turns=6",
        "cooking recipe=2 take=2 go=6 open=1 cook=1 cut=1 split=train turns=30",
    ],
)
def test_the_game_is_the_one_that_textworld_generates(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GameSpec.parse(game)
    simulated = _generated(spec)
    with generate.borrowed_textworld() as textworld:
        maker = textworld.GameMaker
    original: Callable[..., Any] = maker.set_walkthrough
    assert original is not generate.set_walkthrough
    monkeypatch.setattr(generate, "set_walkthrough", original)
    assert _generated(spec) == simulated


def test_a_walkthrough_that_goes_on_after_the_end_is_refused() -> None:
    with generate.borrowed_textworld(1) as textworld:
        maker = textworld.GameMaker()
        room = maker.new_room("hall")
        coin = maker.new(type="o", name="coin")
        room.add(coin)
        maker.set_player(room)
        taken = textworld.generator.Event(conditions={maker.new_fact("in", coin, maker.inventory)})
        maker.quests = [textworld.generator.Quest(win_events=[taken])]
        maker.set_walkthrough(["take coin"])
        assert taken.commands == ("take coin",) and len(taken.actions) == 1
        with pytest.raises(ValueError, match="ended before"):
            maker.set_walkthrough(["take coin", "drop coin"])


def _generated(spec: GameSpec) -> dict[str, Any]:
    with generate.borrowed_textworld(5) as textworld:
        game = generate._generate_game(textworld, spec.family, settings_of(spec), 5).serialize()
    assert isinstance(game, dict)
    return game
