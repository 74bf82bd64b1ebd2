"""Free decoding: the policy writes a response token by token; the last command line of the response is its action.

A batch is decoded side by side behind the cached prefixes that score commands, too. In games that are played to learn
from, answers also hold the log-probabilities of the admissible commands, from which codecs estimate gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.actions import ActionTree
from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..abilities import ANSWERS, SoftPrompted, Steered, behind, embedding, steered
from ..abilities import length as tokens_of
from ..abilities import tell as told_by
from ..policy import Answer, LogProbs, sampled
from ..spaces import ControlVector, SoftPrompt
from ..tokens import Ids, TokenizedSituation, cut
from .model import TorchModel
from .packed_decoder import PackedDecoder, TorchBackendPolicy
from .prefix_cache import PackedPrefixes

Asked = tuple[Situation, np.random.Generator]
TELL_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class Decoding:
    """Sampling parameters of free decoding.

    Parameters
    ----------
    temperature
        Divides the logits.
    longest
        Most tokens of an answer.
    alternatives
        How many answers to one situation are sampled where a codec compares the one that is given with its siblings.
    scored
        Whether answers hold the log-probabilities of the admissible commands. Games that only measure a policy do not
        need them, and a turn then costs half.
    """

    temperature: float = 1.0
    longest: int = 16
    alternatives: int = 4
    scored: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class FreePolicy:
    """A policy of the torch backend that writes its answers; it scores commands as the inner policy does."""

    inner: TorchBackendPolicy
    decoding: Decoding

    @property
    def abilities(self) -> frozenset[str]:
        """Those of the policy inside, and to write answers."""
        return self.inner.abilities | {ANSWERS}

    @property
    def model(self) -> TorchModel:
        return self.inner.model

    @property
    def version(self) -> str:
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return self.inner.score(situations)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return self.inner.tokens(situations)

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's choices, as of the inner policy."""
        return embedding(self.inner).embed(situations)

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities and embeddings of each situation's choices, as of the inner policy."""
        return embedding(self.inner).score_and_embed(situations)

    @torch.inference_mode()
    def respond(self, asked: Sequence[Asked]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random generator."""
        tokenizer, answers = self.model.tokenizer, list[Answer]()
        rows, rngs = tokenizer.encode([situation for situation, _ in asked]), iter([rng for _, rng in asked])
        for chunk in self.model.chunks(rows):
            with self.inner.open_decoder(chunk) as decoder:
                log_probs, last = decoder.score_commands() if self.decoding.scored else _unscored(decoder, chunk)
                responses = write(decoder, last, self.model, self.decoding, [next(rngs) for _ in chunk])
            answers += [
                self._answer(tokens, scores.cpu().numpy()) for tokens, scores in zip(responses, log_probs, strict=True)
            ]
        return [
            _open(answer) if situation.open else answer for answer, (situation, _) in zip(answers, asked, strict=True)
        ]

    @torch.inference_mode()
    def sample(self, asked: Sequence[Asked]) -> list[list[Answer]]:
        """Write `Decoding.alternatives` answers to each situation; the prompt is read once for all of them."""
        tokenizer, copies, answers = self.model.tokenizer, self.decoding.alternatives, list[list[Answer]]()
        rows, rngs = tokenizer.encode([situation for situation, _ in asked]), iter([rng for _, rng in asked])
        for chunk in self.model.chunks(rows):
            with self.inner.open_decoder(chunk) as decoder:
                _, last = _unscored(decoder, chunk)
                decoder.fork([copies] * len(chunk))
                repeated = [hidden for hidden in last for _ in range(copies)]
                drawing = [rng for rng in [next(rngs) for _ in chunk] for _ in range(copies)]
                responses = write(decoder, repeated, self.model, self.decoding, drawing)
            written = [self._answer(tokens, np.zeros(0, np.float32)) for tokens in responses]
            answers += [written[start : start + copies] for start in range(0, len(written), copies)]
        return answers

    @torch.inference_mode()
    def log_likelihoods(self, asked: Sequence[tuple[Situation, Sequence[str]]]) -> list[NDArray[np.float64]]:
        """Log-probabilities that it writes each text in a situation and nothing else, shapes ``(texts,)``."""
        tokenizer, found = self.model.tokenizer, list[NDArray[np.float64]]()
        rows = zip(tokenizer.encode([situation for situation, _ in asked]), (texts for _, texts in asked), strict=True)
        weighed = [(row, [tokenizer.ids(text) for text in texts]) for row, texts in rows]

        def size(item: tuple[TokenizedSituation, list[Ids]]) -> int:
            return len(item[0].tokens) + sum(map(len, item[1]))

        for chunk in cut(weighed, size, self.model.batch_tokens):
            with self.inner.open_decoder([row for row, _ in chunk]) as decoder:
                _, last = _unscored(decoder, [row for row, _ in chunk])
                written = [[text[: self.decoding.longest] for text in texts] for _, texts in chunk]
                decoder.fork([len(texts) for texts in written])
                flat = [text for texts in written for text in texts]
                read = iter(decoder.extend(range(len(flat)), flat) if flat else [])
                for before, (_, texts) in zip(last, chunk, strict=True):
                    logs = [self._log_likelihood(torch.cat([before[None], next(read)]), text) for text in texts]
                    found.append(np.array(logs, dtype=np.float64))
        return found

    def _log_likelihood(self, states_TH: torch.Tensor, text: Ids) -> float:
        """Return the log-probability of a text, given the states before each of its tokens and behind the last one."""
        if len(text) > self.decoding.longest:
            return -np.inf
        logits_TV = (states_TH @ self.model.base.head.T).float() / self.decoding.temperature
        log_probs_TV = logits_TV.log_softmax(-1)
        total = log_probs_TV[range(len(text)), list(text)].sum()
        if len(text) < self.decoding.longest:  # one of full length is cut off there, whatever would have followed
            total = total + log_probs_TV[-1, sorted(self.model.tokenizer.end_tokens)].logsumexp(-1)
        return float(total)

    def behind(self, context: SoftPrompt | str) -> FreePolicy:
        """Return this policy with a context in its prompt."""
        return FreePolicy(cast(TorchBackendPolicy, behind(self.inner, context)), self.decoding)

    def steered(self, context: ControlVector) -> FreePolicy:
        """Return this policy with the control vectors of a context."""
        return FreePolicy(cast(TorchBackendPolicy, steered(self.inner, context)), self.decoding)

    def length(self, text: str) -> int:
        """Number of tokens of a text."""
        return tokens_of(self.inner, text)

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer questions, as the inner policy does."""
        return told_by(self.inner, asked, longest)

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Score gradients of the admissible commands, if the inner policy has control vectors."""
        return cast(Steered, self.inner).features(situations)

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, if the inner policy has a soft prompt."""
        return cast(SoftPrompted, self.inner).gradients(turns)

    def _answer(self, tokens: tuple[int, ...], log_probs: LogProbs) -> Answer:
        tokenizer = self.model.tokenizer
        return Answer(tokenizer.decode(tokens), tokens, log_probs, finished=tokens[-1] in tokenizer.end_tokens)


def _open(answer: Answer) -> Answer:
    """Return an answer that need not be one of the admissible commands: it has no alternatives but itself."""
    return replace(answer, alternatives=(answer.command,), log_probs=np.zeros(1, np.float32))


def _unscored(
    decoder: PackedDecoder, rows: Sequence[TokenizedSituation]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Read the moments without the command trees; returns empty log-probabilities and the last hidden states."""
    hidden_states = decoder.extend(range(len(rows)), [row.moment for row in rows])
    return [hidden.new_zeros(0) for hidden in hidden_states], [hidden[-1] for hidden in hidden_states]


@torch.inference_mode()
def tell(
    model: TorchModel,
    asked: Sequence[tuple[str, np.random.Generator]],
    longest: int,
    temperature: float = TELL_TEMPERATURE,
) -> list[str]:
    """Answer questions with the loaded adapter, in at most so many tokens."""
    tokenizer, texts, decoding = model.tokenizer, list[str](), Decoding(temperature, longest)
    no_commands = ActionTree.build([(tokenizer.end_token,)])
    rows = [TokenizedSituation((), tokenizer.chat_prompt(question), no_commands) for question, _ in asked]
    rngs = iter([rng for _, rng in asked])
    for chunk in model.chunks(rows):
        no_prefix = PackedPrefixes({}, np.zeros(0, dtype=np.int64), {(): np.zeros(0, dtype=np.int64)})
        decoder = PackedDecoder(model.trunk, model.trunk.run_all, 0, chunk, no_prefix)
        last = [hidden[-1] for hidden in decoder.extend(range(len(chunk)), [row.moment for row in chunk])]
        responses = write(decoder, last, model, decoding, [next(rngs) for _ in chunk])
        texts += [tokenizer.decode(tokens) for tokens in responses]
    return texts


def write(
    decoder: PackedDecoder,
    last: Sequence[torch.Tensor],
    model: TorchModel,
    decoding: Decoding,
    rngs: Sequence[np.random.Generator],
) -> list[tuple[int, ...]]:
    """Sample one response per row, its end token included.

    Parameters
    ----------
    last
        Hidden state that the LM head reads at the end of each row, shape (hidden,) each.
    rngs
        One random generator per row, which draws one uniform number per token.
    """
    responses: list[list[int]] = [[] for _ in last]
    unfinished, states = list(range(len(last))), list(last)
    for tokens_left in reversed(range(decoding.longest)):
        logits_BV = (torch.stack(states) @ model.base.head.T).float() / decoding.temperature
        for index, probs_V in zip(unfinished, logits_BV.softmax(-1).cpu().numpy(), strict=True):
            responses[index].append(sampled(probs_V, rngs[index]))
        unfinished = [index for index in unfinished if responses[index][-1] not in model.tokenizer.end_tokens]
        if not unfinished or not tokens_left:
            break
        states = [hidden[-1] for hidden in decoder.extend(unfinished, [responses[i][-1:] for i in unfinished])]
    return [tuple(tokens) for tokens in responses]
