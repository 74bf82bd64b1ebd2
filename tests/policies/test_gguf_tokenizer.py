"""The tokenizer of the packaged SmolLM2 through llama.cpp gives the token ids that transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")

from fedoel.games.families import build_game
from fedoel.policies.llama.library import LlamaFile
from fedoel.policies.llama.model import GgufTokenizer
from fedoel.policies.model_files import find_model
from fedoel.policies.tokens import PromptTokenizer
from fedoel.policies.torch.base import dequantised
from fedoel.protocol.errors import ModelError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.situation import Memory, Situation

SPECS = ("coin-collector level=102 turns=7", "frozen-lake size=4 turns=6", "sokoban turns=5")
WORDS = st.sampled_from(
    ["Take", "the 2nd", "chef's", "coin.", "-=", "Room 101", "=-", "\n", "  ", "it's", "<|im_end|>", "½", "naïve", "🪙"]
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(cache: Path) -> tuple[GgufTokenizer, Any]:
    from transformers import AutoTokenizer

    file = find_model("")
    folder, _ = dequantised(file, cache)
    return GgufTokenizer(LlamaFile(file, gpu=False)), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def situations(spec: GameSpec, seed: int, cache: Path) -> list[Situation]:
    """What a player sees that walks through a game by the numbers."""
    game = build_game(spec, cache)
    try:
        now = game.reset(seed)
        memory = Memory(now.goal, spec.max_turns)
        found = [memory.see(now.text, now.admissible, 0)]
        while not now.done:
            command = now.admissible[(seed + now.turn) % len(now.admissible)]
            memory.do(command)
            now = game.step(command)
            found.append(memory.see(now.text, now.admissible, now.turn))
    finally:
        game.close()
    return [situation for situation in found if situation.admissible]


@pytest.mark.parametrize("spec", SPECS)
def test_prompts_and_commands_have_the_same_tokens(pair: tuple[GgufTokenizer, Any], cache: Path, spec: str) -> None:
    ours, theirs = (PromptTokenizer(tokenizer) for tokenizer in pair)
    assert ours.head == theirs.head
    for seed in range(4):
        seen = situations(GameSpec.parse(spec), seed, cache)
        assert len(seen) > 1
        for own, other in zip(ours.encode(seen), theirs.encode(seen), strict=True):
            assert (own.scene, own.moment) == (other.scene, other.moment)
            assert own.tree.tokens.tolist() == other.tree.tokens.tolist()
            assert own.tree.choice_token.tolist() == other.tree.choice_token.tolist()


@settings(max_examples=300)
@given(text=st.one_of(st.text(), st.text("ab1½ \n\t"), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_text_that_the_vocabulary_has_has_the_same_tokens(pair: tuple[GgufTokenizer, Any], text: str) -> None:
    """Both leave out a byte that is no token, as \\x16 is none; what stood beside it merges in transformers only."""
    assume(
        all(pair[1].decode(pair[1](letter, add_special_tokens=False)["input_ids"]) == letter for letter in set(text))
    )
    ours, theirs = (tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in pair)
    assert list(ours) == list(theirs)


def test_templates_are_rendered_alike(pair: tuple[GgufTokenizer, Any]) -> None:
    for roles in (("system", "user"), ("user",), ("system", "user", "assistant", "user")):
        messages = [{"role": role, "content": f"  I am {role}. "} for role in roles]
        ours, theirs = (
            tokenizer.apply_chat_template(
                messages, chat_template=tokenizer.get_chat_template(), tokenize=False, add_generation_prompt=True
            )
            for tokenizer in pair
        )
        assert ours == theirs
    assert pair[0].eos_token_id == pair[1].eos_token_id


class Untuned:
    """A model file without a chat template, or with a broken one."""

    path, begin, end = Path("model.gguf"), 1, 0

    def __init__(self, template: str) -> None:
        self.template = template

    def metadata(self, key: str) -> str:
        return self.template

    def text(self, token: int) -> str:
        return ""


def test_a_model_without_a_usable_template_is_refused() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        GgufTokenizer(Untuned(""))  # type: ignore[arg-type]
    broken = GgufTokenizer(Untuned("{% for %}"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="cannot be used"):
        PromptTokenizer(broken)
