"""The tokenizer of a GGUF file, by llama.cpp: gives the same token ids as transformers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...protocol.errors import ModelError
from .library import LlamaFile

TEMPLATE = "tokenizer.chat_template"


class GgufTokenizer:
    """Implements `fedoel.policies.tokens.Tokenizer`.

    Raises
    ------
    ModelError
        If the file has no chat template.
    """

    def __init__(self, file: LlamaFile) -> None:
        self._file, self._template = file, file.metadata(TEMPLATE)
        if not self._template:
            raise ModelError(f"{file.path} has no chat template: choose a model that was tuned for chat")

    @property
    def eos_token_id(self) -> int:
        return self._file.end

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Render messages with the Jinja settings of transformers; `tokenize` must be false."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        special = {"bos_token": self._file.text(self._file.begin), "eos_token": self._file.text(self._file.end)}
        try:
            return environment.from_string(self._template).render(
                messages=conversation, add_generation_prompt=add_generation_prompt, **special
            )
        except TemplateError as error:
            raise ModelError(f"the chat template of {self._file.path} cannot be used: {error}") from error

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Return the text's token ids, without added special tokens."""
        return {"input_ids": self._file.tokenise(text)}
