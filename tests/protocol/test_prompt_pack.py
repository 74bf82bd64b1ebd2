"""Prompt packs: what is written is read back the same, and what is no pack is refused by line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol import prompt_pack
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.prompt_pack import (
    HEADER,
    MAX_COMMANDS,
    MAX_TEXT,
    Prompt,
    PromptPack,
    pack_from_bytes,
    read_pack,
    to_bytes,
    write_pack,
)
from fedoel.protocol.situation import Memory, Situation

TEXTS = st.text(max_size=40)
COMMANDS = st.lists(st.text(min_size=1, max_size=10), max_size=6, unique=True).map(tuple)
SITUATIONS = st.builds(
    Situation,
    goal=TEXTS, place=TEXTS, place_text=TEXTS, reply=TEXTS, last=TEXTS, note=TEXTS, back=TEXTS,
    carried=COMMANDS, done_here=COMMANDS, done=COMMANDS.map(frozenset), fresh=COMMANDS, admissible=COMMANDS,
    turn=st.integers(0, 2**70), max_turns=st.integers(0, 99),
)  # fmt: skip
PROMPTS = st.builds(Prompt, st.text(min_size=1, max_size=20), SITUATIONS)
RED_LINES = st.lists(st.text(max_size=20).filter(str.strip), max_size=3).map(tuple)
PACKS = st.builds(
    PromptPack, TEXTS, TEXTS, st.lists(PROMPTS, min_size=1, max_size=5, unique=True).map(tuple), RED_LINES
)


def prompt(text: str = "A lake.", commands: tuple[str, ...] = ("go east", "go west"), family: str = "lake") -> Prompt:
    return Prompt(family, Memory("Cross it.", 6).see(text, commands, 0))


def file_of(*tables: Any) -> bytes:
    return b"".join(json.dumps(table if isinstance(table, list) else dict(table)).encode() + b"\n" for table in tables)


LINE = {"family": "lake", "goal": "Cross it.", "admissible": ["go east", "go west"]}
FILE = file_of(HEADER, LINE).rstrip()


@given(PACKS)
def test_a_pack_is_read_back_as_it_was_written(pack: PromptPack) -> None:
    data = to_bytes(pack)
    assert pack_from_bytes(data, "pack") == pack
    assert to_bytes(pack_from_bytes(data, "pack")) == data


@given(st.binary() | st.lists(st.binary(max_size=30), max_size=4).map(lambda lines: b"\n".join([FILE, *lines])))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        pack_from_bytes(data, "pack")
    except ConfigError as error:
        assert "pack, line " in str(error) and "\n" not in str(error)


@given(st.data(), PACKS)
def test_a_damaged_pack_is_read_or_refused(data: st.DataObject, pack: PromptPack) -> None:
    written = bytearray(to_bytes(pack))
    for index in data.draw(st.lists(st.integers(0, len(written) - 1), min_size=1, max_size=4)):
        written[index] = data.draw(st.integers(0, 255))
    try:
        pack_from_bytes(bytes(written), "pack")
    except ConfigError as error:
        assert "pack, line " in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*LINE, "turn", "done", "note", "other"]), JSON))
def test_any_value_of_a_field_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        pack_from_bytes(file_of(HEADER, {**LINE, **values}), "pack")
    except ConfigError as error:
        assert str(error).startswith("pack, line 2: ")


def test_a_pack_is_named_by_the_hash_of_its_file(tmp_path: Path) -> None:
    pack = PromptPack("by hand", "CC0", (prompt(), prompt("A hill."), prompt(family="hill")))
    write_pack(tmp_path / "deep" / "pack.jsonl", pack)
    data = (tmp_path / "deep" / "pack.jsonl").read_bytes()
    assert read_pack(tmp_path / "deep" / "pack.jsonl") == pack
    assert pack.digest == hashlib.sha256(data).hexdigest()[:16]
    assert pack.digest != replace(pack, licence="CC-BY").digest
    assert pack.families == ("lake", "hill")


def test_the_header_carries_red_lines_and_the_hash_covers_them() -> None:
    pack = PromptPack("by hand", "CC0", (prompt(),))
    guarded = replace(pack, red_lines=("Break the ice", "swim *"))
    header = to_bytes(guarded).splitlines()[0]
    assert json.loads(header)["red_lines"] == ["Break the ice", "swim *"]
    assert pack_from_bytes(to_bytes(guarded), "pack") == guarded and guarded.digest != pack.digest


def test_a_pack_without_red_lines_is_what_the_release_before_wrote_and_read() -> None:
    header = b'{"schema": 1, "kind": "fedoel prompts", "origin": "by hand", "licence": "CC0"}'
    pack = PromptPack("by hand", "CC0", (prompt(),))
    assert to_bytes(pack).splitlines()[0] == header
    assert pack_from_bytes(to_bytes(pack), "pack").red_lines == ()
    listed = header.removesuffix(b"}") + b', "red_lines": []}\n' + to_bytes(pack).splitlines()[1]
    assert pack_from_bytes(listed, "pack") == pack


def test_a_line_is_short_and_needs_a_family_only() -> None:
    data = file_of(HEADER, {"family": "mail"}, {"family": "mail", "goal": "Ask.", "done": ["b", "a", "b"]})
    first, second = pack_from_bytes(data + b"\n \n", "pack").prompts
    assert (first.situation.admissible, first.situation.turn, first.situation.done) == ((), 0, frozenset())
    assert second.situation.done == {"a", "b"}
    assert to_bytes(PromptPack("", "", (second,))).splitlines()[1] == (
        b'{"family": "mail", "goal": "Ask.", "done": ["a", "b"]}'
    )


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", "pack, line 1: there is no header"),
        (file_of(LINE), "pack, line 1: it must be the header of a prompt pack"),
        (file_of({**HEADER, "kind": "words"}, LINE), "pack, line 1: it must be the header"),
        (file_of({**HEADER, "schema": True}, LINE), "pack, line 1: it must be the header"),
        (file_of({**HEADER, "schema": 2, "more": 1}, LINE), "line 1: the pack is of schema 2 and this fedoel reads up"),
        (
            file_of({**HEADER, "schema": 0}, LINE),
            "line 1: the pack names no schema: schema must be a whole number from 1 on, not 0",
        ),
        (file_of({**HEADER, "author": "me"}, LINE), "line 1: unknown field 'author'; known are schema, kind, origin"),
        (file_of({**HEADER, "origin": 3}, LINE), "line 1: origin must be text, not 3"),
        (file_of({**HEADER, "licence": "x" * (MAX_TEXT + 1)}, LINE), "line 1: licence has 8001 characters"),
        (
            file_of({**HEADER, "red_lines": "swim"}, LINE),
            "line 1: red_lines must be at most 200 texts of 1 to 200 char",
        ),
        (file_of({**HEADER, "red_lines": ["swim", 1]}, LINE), "line 1: red_lines must be at most 200 texts"),
        (file_of({**HEADER, "red_lines": ["\ud800"]}, LINE), "line 1: red_lines must be at most 200 texts"),
        (file_of(HEADER), "pack, line 1: the pack has no prompts"),
        (file_of(HEADER, LINE) + b"{", "pack, line 3: it is not JSON in UTF-8"),
        (file_of(HEADER) + "{'é'}".encode("latin-1"), "pack, line 2: it is not JSON in UTF-8"),
        (file_of(HEADER) + b"[" * 200_000, "pack, line 2: it is not JSON in UTF-8"),
        (file_of(HEADER) + b'{"family": "a", "turn": ' + b"9" * 9_999 + b"}", "line 2: it is not JSON in UTF-8"),
        (file_of(HEADER, [1]), "line 2: it must be a JSON object, not [1]"),
        (file_of(HEADER, {"goal": "Go."}), "line 2: family is missing"),
        (file_of(HEADER, {"family": ""}), "line 2: family must not be empty"),
        (file_of(HEADER, {**LINE, "reward": 1}), "line 2: unknown field 'reward'; known are family, goal,"),
        (file_of(HEADER, {**LINE, "goal": None}), "line 2: goal must be text, not None"),
        (file_of(HEADER, {**LINE, "goal": "\ud800"}), "line 2: goal is not valid Unicode at character 0"),
        (file_of(HEADER, {**LINE, "turn": True}), "line 2: turn must be a whole number of at least 0, not True"),
        (file_of(HEADER, {**LINE, "turn": -1}), "line 2: turn must be a whole number"),
        (file_of(HEADER, {**LINE, "done": "go"}), "line 2: done must be a list of texts, not 'go'"),
        (file_of(HEADER, {**LINE, "done": [["go"]]}), "line 2: done must be a list of texts, not [['go']]"),
        (file_of(HEADER, {**LINE, "admissible": ["a", "a"]}), "line 2: the admissible commands must be distinct"),
        (file_of(HEADER, {**LINE, "admissible": [""]}), "line 2: the admissible commands must be distinct and none"),
        (file_of(HEADER, LINE, {**LINE, "turn": 1}, LINE), "line 4: this prompt equals the one of line 2"),
        (file_of(HEADER, {**LINE, "note": "x" * MAX_TEXT}), "line 2: the prompt has 8027 characters of text"),
        (
            file_of(HEADER, {**LINE, "admissible": [str(i) for i in range(MAX_COMMANDS + 1)]}),
            "line 2: the prompt has 257 commands, and at most 256 are allowed",
        ),
    ],
)
def test_what_is_no_pack_is_refused_by_line(data: bytes, refusal: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pack_from_bytes(data, "pack")
    assert refusal in str(caught.value)


def test_limits_themselves_are_allowed() -> None:
    commands = tuple(str(i) for i in range(MAX_COMMANDS))
    used = len("lake") + len("Cross it.") + sum(map(len, commands))
    assert pack_from_bytes(to_bytes(PromptPack("", "", (prompt("x" * (MAX_TEXT - used), commands),))), "pack")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pack = tmp_path / "pack.jsonl", PromptPack("", "", (prompt(),))
    write_pack(path, pack)
    monkeypatch.setattr(prompt_pack, "MAX_BYTES", 99)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was read"))
    with pytest.raises(ConfigError, match=r"pack\.jsonl has \d+ bytes, and a prompt pack has at most 99"):
        read_pack(path)
    with pytest.raises(ConfigError, match="the pack has"):
        to_bytes(pack)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl cannot be read: No such file"):
        read_pack(tmp_path / "nowhere.jsonl")


def test_packs_that_cannot_be_written_are_not_built() -> None:
    with pytest.raises(ConfigError, match="has no prompts"):
        PromptPack("", "", ())
    with pytest.raises(ConfigError, match="prompt 1 equals prompt 0"):
        PromptPack("", "", (prompt(), prompt()))
    listed: Any = ["go"]
    numbered: Any = (1, 2)
    with pytest.raises(ConfigError, match="admissible must be text, not 1"):
        Prompt("lake", replace(prompt().situation, admissible=numbered))
    with pytest.raises(ConfigError, match="carried must be"):
        Prompt("lake", replace(prompt().situation, carried=listed))


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    data = to_bytes(PromptPack("by hand", "", (prompt(),)))
    assert pack_from_bytes("\ufeff".encode() + data, "pack") == pack_from_bytes(data, "pack")


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_of_hundreds_of_digits_is_refused_or_read(digits: int) -> None:
    line = file_of(HEADER).rstrip() + b'\n{"family": "lake", "max_turns": 1.5, "turn": ' + b"9" * digits + b"}\n"
    with pytest.raises(ConfigError, match=r"^pack, line 2: ") as refusal:
        pack_from_bytes(line, "pack")
    assert len(str(refusal.value)) < 250
