"""What a model's chat template puts around a message: the same text on every day, for every kind of template.

Templates differ: some have no system role, some write today's date, some ask whether the model is to think. A template
that cannot be used is refused with a sentence, when a model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..protocol.errors import ModelError

MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
# Before a template: what writes today's date writes a fixed one, because prompts must not change from day to day.
FIXED_DAY = "{% macro strftime_now(format) %}01 Jan 2024{% endmacro %}"
END = re.compile(r"\s*(<[^<>\s]+>)")
Message = Mapping[str, str]


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    @property
    def eos_token_id(self) -> Any:
        """Id of the token that ends a text."""

    def get_chat_template(self) -> str:
        """Return the template in Jinja."""

    def apply_chat_template(
        self, conversation: Any, *, chat_template: str, tokenize: bool, add_generation_prompt: bool, **variables: Any
    ) -> Any:
        """Render messages as a prompt, up to where the model answers; `variables` are those of the template."""

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Any:
        """Return ``{"input_ids": token ids of the text}``; special tokens in the text are recognised."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A tokenizer's chat template.

    Parameters
    ----------
    thinking
        Whether the model is to think before it answers, where its template can say so.
    """

    tokenizer: Tokenizer
    thinking: bool = False

    def around(self, system: str) -> tuple[str, str]:
        """Return the texts before and behind a user's message, up to where the model answers.

        A template without a system role gets the system's text before the user's.

        Raises
        ------
        ModelError
            If there is no chat template, or it does not show the message once.
        """
        messages = [{"role": "system", "content": system}, {"role": "user", "content": MARK}]
        try:
            text = self._render(messages)
        except ModelError:
            text = ""
        if system not in text:
            text = self._render([{"role": "user", "content": f"{system}\n\n{MARK}"}])
        if text.count(MARK) != 1:
            raise ModelError(
                f"the model's chat template shows a message {text.count(MARK)} times: choose another model"
            )
        before, _, behind = text.partition(MARK)
        return before, behind

    def prompt(self, text: str) -> str:
        """Return a conversation whose only message is the user's text, up to where the model answers."""
        return self._render([{"role": "user", "content": text}])

    @property
    def end(self) -> str:
        """The special token that the template puts behind an answer; empty if it shows none."""
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
        try:
            found = END.match(self._render(messages, answered=True).partition(MARK)[2])
        except ModelError:
            return ""
        return found[1] if found else ""

    def _render(self, messages: Sequence[Message], answered: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=FIXED_DAY + self.tokenizer.get_chat_template(), tokenize=False,
                add_generation_prompt=not answered, enable_thinking=self.thinking,
            )  # fmt: skip
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"the model's chat template cannot be used: {error}") from error
        return text
