"""The verb ``prompts``: packs are made from games, text and plug-ins, shown, and checked against held-out games."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.games.heuristics import uniform
from fedoel.games.make_prompts import prompts_from_text
from fedoel.games.scripted import play_scripted
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.protocol.play import GameSpec
from fedoel.protocol.prompt_pack import Prompt, PromptPack, pack_from_bytes, read_pack, write_pack
from fedoel.protocol.situation import Memory

DOCS = Path(__file__).resolve().parents[2] / "docs" / "simulate.md"
LAKE, TIDY = "frozen-lake size=4 turns=6", "tidy things=1 final=1 turns=6"
LETTERS = "Goal: Answer.\n-= Inbox =-\nA letter \x1b[2J from the bank.\n> reply\n> wait\n\nA bell rings.\n"
PLUGIN = """
from fedoel.protocol.prompt_pack import Prompt
from fedoel.protocol.situation import Memory

def prompts():
    number = 0
    while True:
        number += 1
        yield Prompt("letters", Memory("Answer.", 1).see(f"Letter {number}.", ("reply", "wait"), 0))
"""


@pytest.fixture
def lake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "lake.jsonl"
    words = ["prompts", "make", LAKE, "--count", "30", "--out", str(path), "--licence", "CC0", "--seed", "2"]
    assert main(words) == 0
    assert f"prompt pack {read_pack(path).digest}: 30 prompts\n" in capsys.readouterr().out
    return path


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == REFUSED
    return capsys.readouterr().err


def test_a_pack_of_games_is_made_shown_and_checked(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "show", str(lake), "--number", "2"]) == 0
    out = capsys.readouterr().out
    assert f"prompt pack {read_pack(lake).digest}: 30 prompts\n" in out
    assert f"origin: uniform play of {LAKE}\nlicence: CC0\n" in out
    assert "frozen-lake: 30; by turn 0: 5, 1: 5, 2: 5, 3: 5, 4: 5, 5: 5\n" in out
    assert "--- line 2: frozen-lake, turn" in out and "--- line 3: frozen-lake, turn" in out
    assert out.count("---") == 2 and out.count("Goal: ") == 2 and "> " in out
    assert main(["prompts", "check", str(lake), "--against", f"{LAKE}; {TIDY}"]) == 0
    assert "no prompt nearly equals a state of 50 held-out games" in capsys.readouterr().out


def test_red_lines_are_shown_without_what_controls_a_terminal(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prompts", "show", str(lake)]) == 0 and "red lines" not in capsys.readouterr().out
    write_pack(tmp_path / "guarded.jsonl", replace(read_pack(lake), red_lines=("go \x1b[2J up", "swim *")))
    assert main(["prompts", "show", str(tmp_path / "guarded.jsonl")]) == 0
    assert "red lines: go ?[2J up, swim *\n" in capsys.readouterr().out


def test_a_file_is_not_overwritten(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = lake.read_bytes()
    assert "lake.jsonl exists" in refusal(["prompts", "make", TIDY, "--out", str(lake)], capsys)
    assert lake.read_bytes() == before


def test_states_of_held_out_games_are_refused_by_line(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, seed = for_split(GameSpec.parse(LAKE), Split.HELD_OUT), game_seed(Split.HELD_OUT, 4)
    leak = play_scripted(spec, seed, uniform, np.random.default_rng(0), tmp_path).turns[0].situation
    prompts = read_pack(lake).prompts
    write_pack(tmp_path / "leaky.jsonl", PromptPack("", "", (*prompts[:5], Prompt("mine", leak), *prompts[5:])))
    words = ["prompts", "check", str(tmp_path / "leaky.jsonl")]
    assert main(words) == 0
    error = refusal([*words, "--against", LAKE], capsys)
    assert "leaky.jsonl nearly equal states of held-out games; delete lines 7\n" in error
    assert "--against names no games" in refusal([*words, "--against", ""], capsys)


def test_a_long_list_of_lines_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, rng = for_split(GameSpec.parse(LAKE), Split.HELD_OUT), np.random.default_rng(0)
    seeds = [game_seed(Split.HELD_OUT, index) for index in range(50)]
    starts = [play_scripted(spec, seed, uniform, rng, tmp_path).turns[0].situation for seed in seeds]
    prompts = tuple(Prompt("mine", situation) for situation in dict.fromkeys(starts))[:12]
    write_pack(tmp_path / "leaky.jsonl", PromptPack("", "", prompts))
    error = refusal(["prompts", "check", str(tmp_path / "leaky.jsonl"), "--against", LAKE], capsys)
    assert "delete lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more\n" in error


def test_a_pack_is_made_from_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters.txt").write_text(LETTERS)
    out = tmp_path / "letters.jsonl"
    words = ["prompts", "make", "--text", str(tmp_path / "letters.txt"), "--family", "letters", "--out", str(out)]
    assert main(words) == 0
    assert "letters: 2, 1 with an open answer; by turn 0: 2\n" in capsys.readouterr().out
    pack = read_pack(out)
    assert (pack.origin, pack.families) == ("letters.txt", ("letters",))
    assert main(["prompts", "show", str(out), "--number", "9"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "A letter ?[2J from the bank." in shown
    assert "> reply\n> wait\n" in shown and shown.endswith("Last: A bell rings.\n(open answer)\n")


def test_a_pack_is_made_from_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter_source.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "letters.jsonl"
    words = ["prompts", "make", "letter_source:prompts", "--count", "7", "--out", str(out), "--origin", "ours"]
    assert main(words) == 0
    last = Memory("Answer.", 1).see("Letter 7.", ("reply", "wait"), 0)
    assert read_pack(out).prompts[-1] == Prompt("letters", last)
    assert read_pack(out).origin == "ours"
    assert "cannot be imported" in refusal(["prompts", "make", "letter_source:no", "--out", "x.jsonl"], capsys)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["make", "--out", "x.jsonl"], "name games or a plug-in, or else a text file"),
        (["make", LAKE, "--text", "a.txt", "--out", "x.jsonl"], "name games or a plug-in"),
        (["make", "--text", "a.txt", "--out", "x.jsonl"], "--family NAME"),
        (["make", LAKE, "--family", "lake", "--out", "x.jsonl"], "--family NAME"),
        (["make", "--text", "a.txt", "--family", "a", "--out", "x.jsonl"], "a.txt cannot be read"),
        (["make", LAKE, "--count", "0", "--out", "x.jsonl"], "--count must be from 1 to 1,000,000"),
        (["make", LAKE, "--count", "1000000001", "--out", "x.jsonl"], "--count must be from 1 to 1,000,000"),
        (["make", LAKE, "--count", "1" + 99 * "0", "--out", "x.jsonl"], "--count must be from 1 to 1,000,000"),
        (["make", LAKE, "--seed", "-1", "--out", "x.jsonl"], "--seed at least 0"),
        (["make", "frozen-lak turns=3", "--out", "x.jsonl"], "unknown game family 'frozen-lak'"),
        (["make", "frozen-lake", "--out", "x.jsonl"], "say how long an episode may be"),
        (["make", "tidy things=1 final=1 turns=1", "--out", "x.jsonl"], "too few distinct states"),
        (["make", LAKE, "--out", "bad.jsonl/x.jsonl"], "bad.jsonl/x.jsonl cannot be written: File exists\n"),
        (["show", "x.jsonl"], "x.jsonl cannot be read"),
        (["check", "bad.jsonl"], "bad.jsonl, line 1: it is not JSON in UTF-8"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(
    words: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("prompts")
    error = refusal(["prompts", *words], capsys)
    assert problem in error and error.startswith("fedoel: ") and error.count("\n") == 1
    assert not (tmp_path / "x.jsonl").exists()


def test_the_examples_of_the_docs_are_read(tmp_path: Path) -> None:
    blocks = DOCS.read_text(encoding="utf-8").partition("## Prompt packs")[2].split("```\n")
    (jsonl,) = (block for block in blocks if block.startswith('{"schema"'))
    (text,) = (block for block in blocks if block.startswith("Goal:"))
    assert pack_from_bytes(jsonl.encode(), "docs").families == ("letters",)
    (tmp_path / "letters.txt").write_text(text)
    (letter,) = prompts_from_text(tmp_path / "letters.txt", "letters")
    assert letter.situation.admissible == ("order a new card", "throw the letter away")


def test_a_pack_of_an_open_game_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = str(tmp_path / "pack.jsonl")
    assert main(["prompts", "make", "tidy open=1 turns=2", "--count", "20", "--out", pack]) == 0
    assert main(["prompts", "show", pack]) == 0
    assert "tidy: 20, 20 with an open answer" in capsys.readouterr().out
    assert '"open": true' in Path(pack).read_text(encoding="utf-8")
