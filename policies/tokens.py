"""From situations to tokens: prompt segments, and the action tree behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..protocol.actions import ActionTree
from ..protocol.prompts import TREE_STYLE, Style, render
from ..protocol.situation import Situation
from .spans import Span, causal

MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
Ids = tuple[int, ...]
RowKey = tuple[Ids, Ids, bytes, bytes]
Item = TypeVar("Item")
TEXTS_KEPT = 16_384


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenised situation. The model reads the moment and then the tree's nodes."""

    scene: Ids
    moment: Ids
    tree: ActionTree

    @property
    def tokens(self) -> list[int]:
        return [*self.moment, *self.tree.tokens.tolist()]

    @property
    def key(self) -> RowKey:
        """What decides the row's hidden states."""
        return self.scene, self.moment, self.tree.tokens.tobytes(), self.tree.parents.tobytes()

    @property
    def vocabulary(self) -> NDArray[np.int64]:
        """The tokens over which the next one is normalised, in ascending order."""
        return np.unique([*self.scene, *self.moment, *self.tree.choice_token])

    def positions(self, start: int) -> NDArray[np.int64]:
        """Place of each token behind `start` tokens of head and scene: a node's is that of its depth."""
        moment = len(self.moment)
        return np.concatenate([np.arange(moment), moment - 1 + self.tree.depths]) + start

    def span(self, start: int, context: NDArray[np.int64]) -> Span:
        """Lay the row out behind `start` tokens of head and scene, whose keys are `context`."""
        moment, nodes = len(self.moment), len(self.tree.tokens)
        sees = np.zeros((moment + nodes, moment + nodes), dtype=bool)
        sees[:moment, :moment] = causal(moment)
        sees[moment:, :moment] = True
        sees[moment:, moment:] = self.tree.ancestors()
        return Span(moment + nodes, self.positions(start), context, sees)


class Tokenizer(Protocol):
    """What is used here of a transformers tokenizer."""

    @property
    def eos_token_id(self) -> Any:
        """Number of the token that ends a command."""
        ...

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any:
        """Render messages as the prompt of an answer."""
        ...

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Any:
        """Return ``{"input_ids": numbers of the text's tokens}``; special tokens in the text are recognised."""
        ...


class PromptTokenizer:
    """Tokenises situations with one model's tokenizer and chat template, and reads what was written.

    Parameters
    ----------
    style
        How the policy is asked.
    """

    def __init__(self, tokenizer: Tokenizer, style: Style = TREE_STYLE) -> None:
        self._tokenizer, self._style = tokenizer, style
        messages = [{"role": "system", "content": style.system}, {"role": "user", "content": MARK}]
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        head, _, self._tail = text.partition(MARK)
        self.ids = lru_cache(maxsize=TEXTS_KEPT)(self._tokenise)
        self.head = self.ids(head)

    def encode(self, situations: Sequence[Situation]) -> list[Row]:
        """Tokenise every situation: scene, moment and action tree."""
        return [self._row(situation) for situation in situations]

    def prompt_tokens(self, situation: Situation) -> int:
        """Length of the whole prompt, head included."""
        prompt = render(situation, self._style)
        return len(self.head) + len(self.ids(prompt.scene)) + len(self.ids(prompt.moment + self._tail))

    def chat(self, text: str) -> Ids:
        """A question as the user's turn of a conversation, up to where the model answers."""
        messages = [{"role": "user", "content": text}]
        return self._tokenise(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return int(self._tokenizer.eos_token_id)

    def text(self, tokens: Sequence[int]) -> str:
        """What some tokens say; special ones say nothing. Only of a tokenizer of transformers."""
        return str(cast(Any, self._tokenizer).decode(tokens, skip_special_tokens=True))

    def _row(self, situation: Situation) -> Row:
        prompt = render(situation, self._style)
        tree = ActionTree.build([self._command_ids(command) for command in situation.admissible])
        return Row(self.ids(prompt.scene), self.ids(prompt.moment + self._tail), tree)

    def _command_ids(self, command: str) -> Ids:
        return (*self.ids(command), self.end)

    def _tokenise(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def cut(items: Iterable[Item], tokens: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Cut items, in their order, into batches of at most `most` tokens, or of one item that has more."""
    batch: list[Item] = []
    used = 0
    for item in items:
        if batch and used + tokens(item) > most:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += tokens(item)
    if batch:
        yield batch
