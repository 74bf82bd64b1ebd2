"""From situations to tokens: the segments of a prompt, and the tree of the admissible commands behind it.

A prompt is made of segments, from the most to the least shared (`fedoel.protocol.prompts`):

* the *head*: chat template and system message, the same in all prompts of a model;
* the *scene*: goal, place and what was read, the same for several turns of a game;
* the *moment*: what is known in this turn, up to where the model answers;
* the *command tree*: the admissible commands by their common beginnings (`fedoel.protocol.actions`).

Head and scene are shared prefixes: a *prefix cache* keeps their keys and values. Moment and tree make a *row*, which
every forward pass reads anew. A policy with a context in its prompt has it between head and moment, beside the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..protocol.actions import ActionTree
from ..protocol.errors import ModelError
from ..protocol.prompts import TREE_STYLE, Style, render
from ..protocol.situation import Situation
from .chat_template import ChatTemplate, Tokenizer

Ids = tuple[int, ...]
TokensKey = tuple[Ids, Ids, bytes, bytes]
CommandsKey = tuple[Ids, Ids, bytes, bytes, bytes]
Item = TypeVar("Item")
TEXTS_KEPT = 16_384


@dataclass(frozen=True, slots=True)
class PackedSequence:
    """One sequence of a packed batch. Its tokens attend to cached prefixes and to each other, to no other sequence.

    Parameters
    ----------
    length
        Number of tokens.
    positions
        Position of each token in its prompt, shape (length,).
    prefix_keys
        Indices of the cached keys that its tokens attend to.
    mask
        Which token attends to which within the sequence, shape (length, length).
    prefix_mask
        Which token attends to which of the cached keys, shape (length, len(prefix_keys)); None if all attend to all.
    """

    length: int
    positions: NDArray[np.int64]
    prefix_keys: NDArray[np.int64]
    mask: NDArray[np.bool_]
    prefix_mask: NDArray[np.bool_] | None = None


def causal(length: int) -> NDArray[np.bool_]:
    """Causal mask: each token attends to itself and to those before it, shape (length, length)."""
    return np.tril(np.ones((length, length), dtype=bool))


@dataclass(frozen=True, slots=True)
class TokenizedSituation:
    """A situation as token ids: its scene, and the row that the model reads behind it, moment and command tree."""

    scene: Ids
    moment: Ids
    tree: ActionTree

    @property
    def tokens(self) -> list[int]:
        """Token ids of the row: the moment, then the tree's nodes."""
        return [*self.moment, *self.tree.tokens.tolist()]

    @property
    def key(self) -> TokensKey:
        """Everything that the row's hidden states depend on below the first adapted layer."""
        return self.scene, self.moment, self.tree.tokens.tobytes(), self.tree.parents.tobytes()

    @property
    def vocabulary(self) -> NDArray[np.int64]:
        """Token ids over which next-token probabilities are normalised, in ascending order."""
        return np.unique([*self.scene, *self.moment, *self.tree.choice_token])

    def positions(self, start: int) -> NDArray[np.int64]:
        """Positions of the row's tokens behind `start` tokens of head and scene; a node's follows from its depth."""
        moment = len(self.moment)
        return np.concatenate([np.arange(moment), moment - 1 + self.tree.depths]) + start

    def packed(self, start: int, prefix_keys: NDArray[np.int64]) -> PackedSequence:
        """Return the row as a packed sequence behind `start` tokens of head and scene, with their keys' indices."""
        moment, nodes = len(self.moment), len(self.tree.tokens)
        mask = np.zeros((moment + nodes, moment + nodes), dtype=bool)
        mask[:moment, :moment] = causal(moment)
        mask[moment:, :moment] = True
        mask[moment:, moment:] = self.tree.ancestors()
        return PackedSequence(moment + nodes, self.positions(start), prefix_keys, mask)


@dataclass(frozen=True, slots=True)
class WholeCommands:
    """A row whose tree holds all tokens of the commands: behind a command's last token, the model has read it.

    Parameters
    ----------
    row
        The row that scores the commands; its tokens are the first ones of `whole`.
    last
        Index, among the tokens of `whole`, of each command's last token, shape (A,).
    """

    row: TokenizedSituation
    whole: TokenizedSituation
    last: NDArray[np.int64]

    @property
    def key(self) -> CommandsKey:
        """Everything that the commands' embeddings depend on, their order included. The row lacks their last tokens."""
        return *self.whole.key, self.last.tobytes()


class PromptTokenizer:
    """Tokenises situations with a model's tokenizer and chat template, and decodes responses.

    Parameters
    ----------
    style
        How prompts ask the policy.

    Raises
    ------
    ModelError
        If the tokenizer has no chat template that can be used, or no end token.
    """

    def __init__(self, tokenizer: Tokenizer, style: Style = TREE_STYLE) -> None:
        self._tokenizer, self._style = tokenizer, style
        self._template = ChatTemplate(tokenizer, style.thinking)
        head, self._tail = self._template.around(style.system)
        self.ids = lru_cache(maxsize=TEXTS_KEPT)(self._tokenise)
        self.head = self.ids(head)
        self.end_token = self._end_token()

    def encode(self, situations: Sequence[Situation]) -> list[TokenizedSituation]:
        """Tokenise situations: scene, moment and command tree of each."""
        return [self._encode(situation) for situation in situations]

    def encode_whole(self, situations: Sequence[Situation]) -> list[WholeCommands]:
        """Tokenise situations, with all tokens of their commands."""
        return [self._encode_whole(situation) for situation in situations]

    def prompt_tokens(self, situation: Situation) -> int:
        """Number of tokens of the whole prompt, head included."""
        prompt = render(situation, self._style)
        return len(self.head) + len(self.ids(prompt.scene)) + len(self.ids(prompt.moment + self._tail))

    def chat_prompt(self, text: str) -> Ids:
        """Token ids of a conversation whose only message is the user's text, up to where the model answers."""
        return self._tokenise(self._template.prompt(text))

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids of the tokens that end a response: the one of the chat template, and the one that ends a text."""
        return frozenset({self.end_token, int(self._tokenizer.eos_token_id)})

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, without special tokens. Needs a tokenizer of transformers."""
        return str(cast(Any, self._tokenizer).decode(tokens, skip_special_tokens=True))

    def _encode(self, situation: Situation) -> TokenizedSituation:
        prompt = render(situation, self._style)
        tree = ActionTree.build(self._commands(situation))
        return TokenizedSituation(self.ids(prompt.scene), self.ids(prompt.moment + self._tail), tree)

    def _encode_whole(self, situation: Situation) -> WholeCommands:
        row = self._encode(situation)
        tree, nodes = row.tree.with_last_tokens(self._commands(situation))
        return WholeCommands(row, replace(row, tree=tree), len(row.moment) + nodes)

    def _commands(self, situation: Situation) -> list[Ids]:
        # A situation without any can be answered in free text: its tree holds the end only.
        return [(*self.ids(command), self.end_token) for command in situation.choices or ("",)]

    def _end_token(self) -> int:
        """Return the id of the token that ends a command: the chat template's, or else the one that ends a text."""
        if self._tokenizer.eos_token_id is None:
            raise ModelError("the model's tokenizer has no end token: choose a model that was tuned for chat")
        end = self._tokenise(self._template.end)
        return end[0] if len(end) == 1 else int(self._tokenizer.eos_token_id)

    def _tokenise(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def cut(items: Iterable[Item], tokens: Callable[[Item], int], max_tokens: int) -> Iterator[list[Item]]:
    """Cut items, in their order, into batches of at most `max_tokens` tokens, or of one item that has more."""
    batch: list[Item] = []
    used = 0
    for item in items:
        if batch and used + tokens(item) > max_tokens:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += tokens(item)
    if batch:
        yield batch
