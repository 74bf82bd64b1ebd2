"""The tutorial docs/assistant.md: its numbers are those of the game. Its commands run in tests/docs."""

from __future__ import annotations

from pathlib import Path

from fedoel.games.assistant.commands import load_language
from fedoel.games.assistant.engine import LANGUAGES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "assistant.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_table() -> None:
    english = load_language("en").commands
    assert f"one of {sum(len(command.sentences['all']) for command in english)} English templates" in TEXT
    assert f"are {len(english)} intents" in TEXT and f"{len(LANGUAGES)} languages" in TEXT
