"""Server and devices must split prompts into the same tokens: torch reads a GGUF file's tokenizer by transformers.

transformers rebuilds the tokenizer from the file's metadata, and drops a rule of some models (digits by themselves).
Where both libraries are installed, they are compared on text that is easy to get wrong, before a run is made.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..protocol.errors import ModelError

AWKWARD = (
    "12345 3.14 1,000 0x1F 2026-11-29",
    "  two  spaces,   three, and one at the end ",
    "a line\nand another\n\n\nand\r\na carriage return\tand a tab",
    "don't DON'T it's we'll I'D",
    "-= Living Room =- (north/south) [closed] {x->y != z} $5.00 100% #1 @home",
    "naïve café Ünïcödé ÆØÅ ß ½ № …—“quotes”",
    "e\u0301 combining, zero\u200bwidth, no-break\u00a0space",
    "日本語のテキスト 中文 한국어 العربية עברית हिन्दी ไทย",
    "🪙 👩‍👩‍👧 🇩🇪 🏳️‍🌈",
    "<|im_start|>user\nno special token, or is it?<|im_end|>\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa Pneumonoultramicroscopicsilicovolcanoconiosis",
)


def check_same_tokens(file: Path, tokenizer: Any) -> None:
    """Compare the tokens of a GGUF file in llama.cpp and in transformers; do nothing where llama.cpp is missing.

    Text that the vocabulary lacks is left out: it has no tokens that could be right.

    Raises
    ------
    ModelError
        If some text has other tokens, by name of the text.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        return
    from .llama.library import LlamaFile

    model = LlamaFile(file, gpu=False)
    for text in AWKWARD:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.decode(ids) == text and ids != (found := model.tokenise(text)):
            raise ModelError(
                f"{file}: llama.cpp and transformers give {text!r} other tokens ({_first_difference(ids, found)}): "
                'devices and server would read other prompts. Choose another model, or policy.backend = "torch"'
            )


def _first_difference(ids: list[int], found: list[int]) -> str:
    at = next((n for n, (a, b) in enumerate(zip(ids, found, strict=False)) if a != b), min(len(ids), len(found)))
    return f"from token {at + 1} on {found[at : at + 3]} and {ids[at : at + 3]}"
