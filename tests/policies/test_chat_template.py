"""Prompts do not depend on the day, nor on whether a template has a system role; what cannot be used is refused."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fedoel.policies.tokens import PromptTokenizer
from fedoel.protocol.errors import ModelError
from fedoel.protocol.prompts import SYSTEM, Style

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
IGNORES_SYSTEM = "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}"
DATE = "Today is {{ strftime_now('%d %b %Y') }}.\n"
THINKING = (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


def tokenizer(base: Path, **attributes: Any) -> Any:
    made = AutoTokenizer.from_pretrained(base)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def prompts(base: Path, template: str, style: Style = Style()) -> tuple[str, str]:  # noqa: B008
    """Head and tail of all prompts."""
    made = PromptTokenizer(tokenizer(base, chat_template=template), style)
    return made.decode(made.head), made._tail


@pytest.mark.parametrize("template", [NO_SYSTEM + TURNS + ASK, IGNORES_SYSTEM + ASK])
def test_a_template_without_a_system_role_has_its_text_before_the_users(template: str, tiny_base: Path) -> None:
    head, tail = prompts(tiny_base, template)
    assert head.endswith(f"{SYSTEM}\n\n") and head.count(SYSTEM) == 1 and tail.startswith("<|im_end|>")


def test_prompts_hold_no_date_of_today(tiny_base: Path) -> None:
    head, _ = prompts(tiny_base, DATE + TURNS + ASK)
    assert str(datetime.date.today().year) not in head and "Today is 01 Jan 2024." in head


def test_a_template_is_told_whether_to_think(tiny_base: Path) -> None:
    for thinking in (False, True):
        _, tail = prompts(tiny_base, TURNS + ASK + THINKING, Style(free=True, thinking=thinking))
        assert tail.endswith("<think></think>") is not thinking


@pytest.mark.parametrize(("attributes", "reason"), [
    ({"chat_template": None}, "chat template cannot be used"),
    ({"chat_template": "{{ raise_exception('never') }}"}, "cannot be used: never"),
    ({"chat_template": TURNS + "{{ messages[-1].content }}" + ASK}, "shows a message 2 times"),
    ({"chat_template": "{% for m in messages %}{{ m.role }}{% endfor %}"}, "shows a message 0 times"),
    ({"chat_template": "{% broken"}, "cannot be used"),
    ({"eos_token": None}, "has no end token"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(attributes: dict[str, Any], reason: str, tiny_base: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        PromptTokenizer(tokenizer(tiny_base, **attributes))


def test_an_answer_ends_where_its_template_says_or_where_a_text_ends(tiny_base: Path) -> None:
    made = tokenizer(tiny_base)
    start, end = made.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    other_end = PromptTokenizer(tokenizer(tiny_base, eos_token="<|im_start|>"))  # as in models with an end of turn
    assert other_end.end_token == end and other_end.end_tokens == {start, end}
    plain = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert PromptTokenizer(tokenizer(tiny_base, chat_template=plain)).end_tokens == {end}
