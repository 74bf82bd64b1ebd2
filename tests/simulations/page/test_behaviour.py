"""Answers before and after, and one game turn by turn, on the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.protocol.records.journal import CURRENT
from fedoel.protocol.records.summary import Summary
from fedoel.server.cycle.behaviour import kept_answers, kept_replay
from fedoel.server.fleet import make_fleet
from fedoel.server.journal import OPERATOR, open_journal
from fedoel.simulations.page.render import render
from fedoel.simulations.page.watched import Watched
from fedoel.simulations.report import write_report

from .conftest import Save, keep, keep_all

PERCENT = re.compile(r"<td>(\d+) %<svg class=\"bar (\w+)\"[^>]*>.*?<rect class=share width=\"([\d.]+)%\"")


def part(page: str, name: str) -> str:
    """Return the section of this name; empty if there is none."""
    found = re.search(rf'<(section|details) id="{name}">.*?</\1>', page, re.DOTALL)
    return found[0] if found else ""


def cards(section: str) -> list[str]:
    return re.findall(r"<article.*?</article>", section, re.DOTALL)


def row(card: str, command: str) -> list[tuple[str, str, str]]:
    """Return percentage, version and width of the bar for each version."""
    found = re.search(rf"<tr[^>]*><th scope=row>(?:<span.*?</span>)?{command}</th>(.*?)</tr>", card)
    assert found, (command, card)
    return PERCENT.findall(found[1])


def shown(folder: Path) -> str:
    return render(Watched(folder).view())


def test_prompts_show_what_the_first_version_the_one_before_and_the_current_one_answer(kept: Path) -> None:
    page = shown(kept)
    answers, more = cards(part(page, "answers")), cards(part(page, "more-answers"))
    assert len(answers) == 4 and len(more) == 2
    assert "Study 5, turn 6" in answers[0] and "Study 4" in answers[1], "those first that have changed most"
    assert "Pick up the coin from the floor" in answers[0] and "There is a coin on the floor." in answers[0]
    assert row(answers[0], "take coin") == [("20", "first", "20.0"), ("40", "before", "40.0"), ("90", "now", "90.0")]
    others = row(answers[0], "3 other commands")
    assert [version for _, version, _ in others] == ["first", "before", "now"] and others[0][0] == "34"
    assert "On 0 of 6 public prompts" in page and re.search(r"from the first version is 0\.\d\d nats", page)


def test_a_game_is_shown_turn_by_turn_with_probabilities_before_and_after(kept: Path) -> None:
    page = shown(kept)
    turns = [*cards(part(page, "replay")), *cards(part(page, "later-turns"))]
    assert [re.findall(r"turn \d", turn)[0] for turn in turns] == [f"turn {number}" for number in range(1, 9)]
    assert len(cards(part(page, "replay"))) == 6 and "won after 8 turns" in page and "seed 5" in page
    assert row(turns[0], "go east") == [("11", "first", "11.4"), ("40", "before", "40.0"), ("70", "now", "70.0")]
    for number, turn in enumerate(turns, 1):
        assert turn.count('aria-label="played"') == 1
        played = re.search(r"<tr class=played>.*?</tr>", turn)
        assert played and ("take coin" if number == 8 else "go east") in played[0]


def test_the_report_and_the_file_show_both_without_a_script(kept: Path) -> None:
    page, report = shown(kept), write_report(kept).read_text(encoding="utf-8")
    for name in ("answers", "more-answers", "replay", "later-turns"):
        assert part(report, name) == part(page, name) != ""
    assert "<script" not in report and "style=" not in report


def test_a_run_that_has_kept_nothing_shows_the_rest(folder: Path) -> None:
    page = shown(folder)
    assert "went from 21" in page and not part(page, "answers") and not part(page, "replay")
    assert not Watched(folder).view().problems


def test_a_server_without_games_says_why_it_replays_none(
    tmp_path: Path, save: Save, fleets: dict[str, Summary]
) -> None:
    run = save(tmp_path / "fleet", fleets["told"])
    keep_all(run)
    (run / "checkpoints" / "cycle-003" / "replay.npz").unlink()
    page = shown(run)
    assert len(cards(part(page, "answers"))) == 4 and "has no games" in part(page, "replay")
    assert not cards(part(page, "replay"))


def test_without_a_promotion_the_first_version_answers_alone(tmp_path: Path, save: Save, summary: Summary) -> None:
    run = save(tmp_path / "new", replace(summary, cycles=summary.cycles[:1]))
    keep_all(run)
    page = shown(run)
    assert "no version has been promoted yet" in part(page, "answers") and not part(page, "replay")
    assert row(cards(part(page, "answers"))[0], "take coin") == [("20", "now", "20.0")]


def test_the_second_version_has_the_first_before_it(begun: Path) -> None:
    keep_all(begun)
    page = shown(begun)
    card = cards(part(page, "answers"))[0]
    assert row(card, "take coin") == [("20", "before", "20.0"), ("40", "now", "40.0")]
    assert "from the first version" not in page and "No game of the current version was kept" in part(page, "replay")


def test_after_a_rollback_it_is_the_chosen_version_that_is_shown(kept: Path) -> None:
    make_fleet(kept / "keys", 2)
    open_journal(kept, kept / "keys").add(CURRENT, version="v-0001a1", by=OPERATOR, cycle=3, reason="rolled back")
    page = shown(kept)
    assert row(cards(part(page, "answers"))[0], "take coin")[-1] == ("40", "now", "40.0")


@pytest.mark.parametrize("name", ["behaviour", "replay"])
def test_a_damaged_record_is_a_sentence(name: str, kept: Path) -> None:
    (kept / "checkpoints" / "cycle-003" / f"{name}.npz").write_bytes(b"PK")
    for page in (shown(kept), write_report(kept).read_text(encoding="utf-8")):
        assert "went from 21" in page and re.search(rf'class="problem">[^<]*{name}.npz is damaged', page)


def test_text_of_games_is_escaped_and_long_text_is_cut(kept: Path) -> None:
    attack = "<script>alert(1)</script>"
    last, game = kept_answers(kept, 3), kept_replay(kept, 3)
    assert last and game
    commands = (attack, *last.questions[0].commands[1:])
    bad = replace(last.questions[0], goal=attack, place=attack, text="word " * 200 + attack, commands=commands)
    keep(kept, 3, replace(last, questions=(bad,) * len(last.questions), parent="gone"))
    turn = replace(game.turns[0], question=bad, answer="I say: " + attack)
    keep(kept, 3, replay=replace(game, game=attack, turns=(turn,)))
    for cycle in (0, 1):
        (kept / "checkpoints" / f"cycle-{cycle:03d}" / "behaviour.npz").unlink()
    page = shown(kept)
    assert "<script" not in page and page.count("&lt;script&gt;") >= 8 and "word …" in page
    assert "nothing was kept of the version before" in page
    assert "I say: &lt;script&gt;" in cards(part(page, "replay"))[0], "what was written instead of a command"
