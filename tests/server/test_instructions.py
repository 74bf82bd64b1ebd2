"""Instructions are judged by what was asked for, and by nothing that the answer happens to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.policies.torch import free
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ConfigError
from fedoel.server.probes import instructions as probe
from fedoel.server.probes.instructions import CHECKS, Instruction, instructions_followed, load_instructions

JUDGED: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"words": 1}, ["White.", " white ", "off-white"], ["", "Snow is white.", "..."]),
    ({"most-words": 3}, ["Honey", "honey and wax"], ["They make honey, mostly", ""]),
    ({"least-words": 3}, ["It falls down.", "rain is wet water"], ["It falls", ""]),
    ({"choice": ["yes", "no"]}, ["Yes.", "no", '"Yes"'], ["Yes, it is", "maybe", ""]),
    ({"digits": True}, ["7", "7."], ["seven", "7 days", ""]),
    ({"capitals": True}, ["APPLE", "AN APPLE."], ["Apple", "apple", "7", ""]),
    ({"small": True}, ["paris", "it is paris."], ["Paris", "PARIS", ""]),
    ({"begins": "Most cats"}, ["Most cats sleep."], ["most cats sleep.", "Cats sleep.", ""]),
    ({"ends": "?"}, ["How are you?", "How are you?\n"], ["How are you", "Who? Me.", "?"]),
    ({"lines": 3}, ["red\ngreen\nblue", "red\n\ngreen\n\nblue\n"], ["red, green, blue", "red\ngreen", ""]),
    ({"lines": 2, "bullets": "- "}, ["- tea\n- milk"], ["tea\nmilk", "- tea\nmilk", "- tea", ""]),
    ({"commas": 1}, ["a, b"], ["a b", "a, b, c"]),
    ({"holds": ["dog", "garden"]}, ["The dog is in the garden."], ["The dogs are in the garden.", "dog", ""]),
    ({"lacks": "e"}, ["Black", "pink and gold"], ["Red", "WHITE", ""]),
    ({"exactly": "The door is green."}, ["The door is green.", "The door is green"], ["A door is green.", "Okay.", ""]),
]


@pytest.mark.parametrize(("checks", "right", "wrong"), JUDGED, ids=lambda value: str(value)[:24])
def test_answers_are_judged(checks: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    instruction = Instruction("?", checks)
    assert [answer for answer in right if not instruction.followed(answer)] == []
    assert [answer for answer in wrong if instruction.followed(answer)] == []


def test_every_check_is_tried_here_and_every_one_is_used() -> None:
    tried = {name for checks, _, _ in JUDGED for name in checks}
    used = {name for instruction in load_instructions() for name in instruction.checks}
    assert tried == used == set(CHECKS)


def test_three_hundred_instructions_are_shipped_that_no_single_answer_follows() -> None:
    shipped = load_instructions()
    assert len(shipped) == len({instruction.ask for instruction in shipped}) == 300
    assert not any("{" in f"{each.ask}{list(each.checks.values())}" for each in shipped)
    for answer in ("", "Yes", "I am sorry.", "Hello! How can I help you today?", "PLEASE\nREAD\nME"):
        assert sum(instruction.followed(answer) for instruction in shipped) <= 150
    assert not any(word in instruction.ask for instruction in shipped for word in ("game", "command", "inventory"))


def test_an_instruction_is_asked_about_every_thing(tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text('[[instructions]]\nask = "Say {}."\nabout = ["yes", "no"]\nholds = ["a", "{}"]\nwords = 2\n')
    assert load_instructions(path) == tuple(
        Instruction(f"Say {thing}.", {"holds": ["a", thing], "words": 2}) for thing in ("yes", "no")
    )


@pytest.mark.parametrize("body", ['ask = "Why?"', 'ask = "Why?"\nrhymes = true'])
def test_an_instruction_that_nothing_can_judge_is_refused(body: str, tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text(f"[[instructions]]\n{body}\n")
    with pytest.raises(ConfigError, match="needs one or more of the checks"):
        load_instructions(path)


def test_a_model_is_asked_greedily_with_its_adapter(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    model = TorchModel(load_base(config, tmp_path), 512)
    asked: list[list[str]] = []
    answer = free.tell

    def listen(*arguments: object) -> list[str]:
        asked.append(answer(*arguments))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(probe, "tell", listen)
    # Half of these are about what the tiny model writes, which nobody knows, and half hold whatever it writes.
    rules = [
        Instruction(f"Say {n}.", {"least-words": 0} if n % 2 else {"exactly": "no model says this"}) for n in range(6)
    ]
    rng = np.random.default_rng(0)
    other = {name: rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in model.fresh.items()}
    shares = [instructions_followed(model, adapter, rules) for adapter in ({}, {}, other)]
    assert asked[0] == asked[1] != asked[2]
    assert shares == [sum(rule.followed(said) for rule, said in zip(rules, texts, strict=True)) / 6 for texts in asked]
