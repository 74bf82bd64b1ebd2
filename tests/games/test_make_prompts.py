"""Prompt packs from games, text files and plug-ins: late states are there, held-out content is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.games import make_prompts
from fedoel.games.families import FAMILIES, family_of
from fedoel.games.heuristics import uniform
from fedoel.games.make_prompts import (
    EXPLORE,
    FIRST_GAME,
    HELD_OUT_GAMES,
    LEAST_STATES,
    STATES_PER_GAME,
    UNIFORM,
    held_out_duplicates,
    make_pack,
    pack_for,
    pack_name,
    prompts_from_plugin,
    prompts_from_text,
)
from fedoel.games.scripted import play_scripted
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GameSpec, Trajectory, specs_from_text
from fedoel.protocol.prompt_pack import Prompt, PromptPack, read_pack, to_bytes

LAKE = GameSpec.parse("frozen-lake size=4 turns=6")
TIDY = GameSpec.parse("tidy things=1 final=1 turns=6")
SOKOBAN = GameSpec.parse("sokoban turns=10")
ORCHARD = GameSpec.parse("orchard trees=2 turns=6")
GUARDED = replace(FAMILIES["frozen-lake"], red_lines=("go up",))
SHOWN = "-= Inbox =-\nOne letter from the bank."


def plan() -> Iterator[Prompt]:
    """A source of prompts without end."""
    (first,) = make_pack([LAKE], 1, 0, Path()).prompts
    for turn in range(10**9):
        yield replace(first, situation=replace(first.situation, turn=turn))


def failing() -> list[Prompt]:
    raise KeyError("no such table")


def words() -> list[str]:
    return ["a word"]


def test_late_states_are_as_frequent_as_early_ones(tmp_path: Path) -> None:
    pack = make_pack([LAKE], 120, 0, tmp_path)
    assert len(set(pack.prompts)) == 120
    assert Counter(prompt.situation.turn for prompt in pack.prompts) == dict.fromkeys(range(6), 20)


def test_families_have_equal_shares_in_every_part_of_a_pack(tmp_path: Path) -> None:
    pack = make_pack([LAKE, TIDY], 61, 0, tmp_path)
    assert pack.families == ("frozen-lake", "tidy")
    assert Counter(prompt.family for prompt in pack.prompts) == {"frozen-lake": 31, "tidy": 30}
    assert Counter(prompt.family for prompt in pack.prompts[:20]) == {"frozen-lake": 10, "tidy": 10}
    assert all(len(prompt.situation.admissible) > 1 for prompt in pack.prompts)
    assert pack.origin == "uniform play of frozen-lake size=4 turns=6; tidy final=1 things=1 turns=6"


def test_a_pack_is_a_function_of_its_seed(tmp_path: Path) -> None:
    first, again, other = (make_pack([LAKE, TIDY], 20, seed, tmp_path, "here", "CC0") for seed in (3, 3, 4))
    assert to_bytes(first) == to_bytes(again)
    assert not set(first.prompts) & set(other.prompts)
    assert (first.origin, first.licence) == ("here", "CC0")


def test_only_public_training_games_are_played_that_no_run_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Counter[tuple[GameSpec, int]]()

    def play(spec: GameSpec, seed: int, *arguments: object) -> Trajectory:
        played[spec, seed] += 1
        return play_scripted(spec, seed, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(make_prompts, "play_scripted", play)
    make_pack([ORCHARD, LAKE], 60, 0, tmp_path)
    held_out = for_split(LAKE, Split.HELD_OUT)
    known = {(held_out, game_seed(Split.HELD_OUT, index)) for index in range(HELD_OUT_GAMES)}
    public = {spec: {seed for other, seed in played.keys() - known if other == spec} for spec, _ in played}
    assert {spec for spec, seeds in public.items() if seeds} == {ORCHARD, for_split(LAKE, Split.REHEARSAL)}
    assert all(seed - game_seed(Split.REHEARSAL, 0) >= FIRST_GAME for seeds in public.values() for seed in seeds)
    assert max(seed for seeds in public.values() for seed in seeds) < Split.GATE.value
    assert len(public[for_split(LAKE, Split.REHEARSAL)]) == 30 / STATES_PER_GAME[UNIFORM]


@pytest.mark.parametrize(
    ("spec", "play"), [(LAKE, UNIFORM), (TIDY, UNIFORM), (SOKOBAN, UNIFORM), (TIDY, EXPLORE)], ids=str
)
def test_held_out_content_stays_out(spec: GameSpec, play: str, tmp_path: Path) -> None:
    assert "split" in family_of(spec.family).rules
    pack = make_pack([spec], 100, 0, tmp_path, play=play)
    assert not any(held_out_duplicates(pack, [spec], HELD_OUT_GAMES, tmp_path, way) for way in {UNIFORM, play})


def test_exploration_gives_other_packs_of_their_own_names(tmp_path: Path) -> None:
    explored, again = (make_pack([TIDY], 40, 1, tmp_path, play=EXPLORE) for _ in range(2))
    assert to_bytes(explored) == to_bytes(again)
    assert explored.origin == "exploration of tidy final=1 things=1 turns=6"
    assert set(explored.prompts) != set(make_pack([TIDY], 40, 1, tmp_path).prompts)
    assert pack_name(str(TIDY), 40, EXPLORE) != pack_name(str(TIDY), 40)
    with pytest.raises(ConfigError, match="are played uniform or explore, not 'gold'"):
        make_pack([TIDY], 40, 1, tmp_path, play="gold")


def test_states_of_held_out_games_are_found_whatever_their_order_and_history(tmp_path: Path) -> None:
    seed = game_seed(Split.HELD_OUT, 2)
    episode = play_scripted(for_split(LAKE, Split.HELD_OUT), seed, uniform, np.random.default_rng(9), tmp_path)
    start = episode.turns[0].situation
    changed = replace(
        start, goal=f" {start.goal.upper()} ", admissible=start.admissible[::-1], turn=5, max_turns=9, last="go up",
        done=frozenset({"go up"}), done_here=("go up",), back="go down", fresh=start.admissible[:1],
    )  # fmt: skip
    others = [replace(start, goal="Swim."), replace(start, admissible=start.admissible[1:]), replace(start, note="x")]
    pack = PromptPack("", "", tuple(Prompt("mine", situation) for situation in (*others, changed, start)))
    assert held_out_duplicates(pack, [LAKE], 3, tmp_path) == [3, 4]
    assert held_out_duplicates(pack, [LAKE], 2, tmp_path) == []
    assert held_out_duplicates(pack, [TIDY], 3, tmp_path) == []


def test_a_family_with_few_states_gives_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_prompts, "SPARE_GAMES", 0)
    few = GameSpec.parse("orchard trees=2 turns=1")  # at most 84 beginnings
    assert LEAST_STATES <= len(make_pack([few, LAKE], 400, 0, tmp_path).prompts) - 200 <= 84
    monkeypatch.setattr(make_prompts, "LEAST_STATES", 90)
    with pytest.raises(GameError, match=r"'orchard trees=2 turns=1' has too few distinct states .*: \d+ in 400 games"):
        make_pack([few], 200, 0, tmp_path)


def test_a_game_without_choices_has_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(GameError, match="pack: 0 in 42 games"):
        make_pack([GameSpec.parse("tidy things=1 final=1 turns=1")], 5, 0, tmp_path)


def test_states_with_too_much_text_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedoel.protocol.prompt_pack.MAX_TEXT", 10)
    with pytest.raises(GameError, match="pack: 0 in"):
        make_pack([LAKE], 5, 0, tmp_path)


@pytest.mark.parametrize(("specs", "count"), [([], 5), ([LAKE, TIDY], 1), ([LAKE], 0)])
def test_a_pack_needs_games_and_prompts(specs: list[GameSpec], count: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a pack needs games"):
        make_pack(specs, count, 0, tmp_path)


def test_a_pack_is_made_on_first_use_and_again_if_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{LAKE}; {TIDY}"
    path = pack_for(text, 20, tmp_path)
    assert path.parent == tmp_path / "prompts" and len(path.stem) == 16
    assert read_pack(path) == make_pack(specs_from_text(text), 20, 0, tmp_path)
    assert list(path.parent.glob("*.jsonl")) == [path]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert pack_for(text, 20, tmp_path) == path and path.read_bytes() == whole
    assert len({path, pack_for(text, 21, tmp_path), pack_for(str(LAKE), 20, tmp_path)}) == 3
    monkeypatch.setattr(make_prompts, "make_pack", lambda *arguments: pytest.fail("was made again"))
    assert pack_for(text, 20, tmp_path) == path


def test_a_pack_carries_the_red_lines_of_its_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{LAKE}; {__name__}:GUARDED size=4 turns=6"
    pack = make_pack(specs_from_text(text), 20, 0, tmp_path)
    assert pack.red_lines == ("go up",) and make_pack([LAKE], 20, 0, tmp_path).red_lines == ()
    assert read_pack(pack_for(text, 20, tmp_path)) == pack
    before = pack_name(text, 20)
    monkeypatch.setattr(f"{__name__}.GUARDED", replace(GUARDED, red_lines=("go down",)))
    family_of.cache_clear()
    assert pack_name(text, 20) != before, "a pack in the cache would lack what the family has declared since"
    family_of.cache_clear()


def test_situations_are_read_from_text(tmp_path: Path) -> None:
    path = tmp_path / "mail.txt"
    path.write_text(f"\nGoal: Answer.\n{SHOWN}\n> reply now\n> reply  later\n\n\nA bell rings.\n\nGoal: Write.\n")
    listed, open_answer, goal_only = (prompt.situation for prompt in prompts_from_text(path, "mail"))
    assert (listed.goal, listed.place, listed.place_text) == ("Answer.", "Inbox", SHOWN)
    assert listed.admissible == ("reply now", "reply later")
    assert (open_answer.goal, open_answer.reply, open_answer.admissible) == ("", "A bell rings.", ())
    assert (goal_only.goal, goal_only.place_text, goal_only.reply) == ("Write.", "", "")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "mail.txt"
    path.write_bytes(b"\xef\xbb\xbfGoal: Answer.\r\nA bell rings.\r\n> reply\r\n> wait\r\n")
    (situation,) = (prompt.situation for prompt in prompts_from_text(path, "mail"))
    assert (situation.goal, situation.reply) == ("Answer.", "A bell rings.")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "mail.txt has no situations"),
        ("Hello.\n\n> go\n> stay\n", "line 3: the situation has commands only"),
        ("Hello.\n> go\n> go\n", "line 1: the admissible commands must be distinct"),
        ("Hello.\n> \n", "line 1: the admissible commands must be distinct and none of them empty"),
        ("Hello.\n\nBye.\n\nHello.\n", "line 5: this situation equals the one of line 1"),
        ("word " * 17, "line 1: a text of more than 16 words must have a line '-= Name =-'"),
        ("x" * 9_000, "line 1: the prompt has 9004 characters of text"),
        ("\udcff", "cannot be read as text in UTF-8"),
    ],
)
def test_bad_text_is_refused_by_line(text: str, refusal: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        prompts_from_text(path, "mail")
    assert refusal in str(caught.value)


def test_a_text_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt cannot be read"):
        prompts_from_text(tmp_path / "nowhere.txt", "mail")


def test_prompts_come_from_a_plugin() -> None:
    assert [prompt.situation.turn for prompt in prompts_from_plugin(f"{__name__}:plan", 3)] == [0, 1, 2]
    for name, refusal in {
        f"{__name__}:failing": "fails: KeyError: 'no such table'",
        f"{__name__}:words": "gives a str at 0, not a Prompt",
        f"{__name__}:SHOWN": "fails: TypeError: 'str' object is not callable",
        f"{__name__}:nothing": "cannot be imported",
    }.items():
        with pytest.raises(ConfigError, match=refusal):
            prompts_from_plugin(name, 3)
