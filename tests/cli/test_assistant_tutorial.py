"""The tutorial docs/assistant.md: its commands run, and show what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.games.assistant.commands import load_language
from fedoel.games.assistant.engine import LANGUAGES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "assistant.md").read_text(encoding="utf-8")


def test_the_commands_run_and_the_request_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in re.findall(r"^fedoel (.+)$", TEXT, flags=re.MULTILINE):
        assert main(shlex.split(command)) == 0, command
    printed = capsys.readouterr().out
    [request] = re.findall(r"^```\n(Goal: .+?)```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert all(line.strip() in printed for line in request.splitlines())


def test_the_numbers_are_those_of_the_table() -> None:
    english = load_language("en").commands
    assert f"one of {sum(len(command.sentences['all']) for command in english)} English templates" in TEXT
    assert f"are {len(english)} intents" in TEXT and f"{len(LANGUAGES)} languages" in TEXT
