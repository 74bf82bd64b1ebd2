"""What is rehearsed by logic alone is what TextWorld finds out in the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedoel.games import generate, rehearsal
from fedoel.games.families import settings_of
from fedoel.protocol.play import GameSpec


@pytest.mark.parametrize(
    "game",
    [
        "coin-collector level=103 turns=6",
        "cooking recipe=2 take=2 go=6 open=1 cook=1 cut=1 split=train turns=30",
    ],
)
def test_the_game_is_the_one_that_textworld_makes(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GameSpec.parse(game)
    quick = _made(spec)
    with generate.borrowed_textworld() as textworld:
        maker = textworld.GameMaker
    slow: Callable[..., Any] = maker.set_walkthrough
    assert slow is not rehearsal.set_walkthrough
    monkeypatch.setattr(generate, "set_walkthrough", slow)
    assert _made(spec) == quick


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


def _made(spec: GameSpec) -> dict[str, Any]:
    with generate.borrowed_textworld(5) as textworld:
        made = generate._first_game(textworld, spec.family, settings_of(spec), 5).serialize()
    assert isinstance(made, dict)
    return made
