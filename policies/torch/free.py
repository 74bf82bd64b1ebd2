"""Free decoding: the policy writes, token by token, and the last command line of what it wrote counts.

The whole batch writes side by side behind the same cached segments that score commands. Where games
are played to learn from them, every answer also says how likely the policy finds the admissible commands, which is what
codecs count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.actions import ActionTree
from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..abilities import ANSWERS, SoftPrompted, Steered, behind, steered
from ..abilities import length as tokens_of
from ..abilities import tell as told_by
from ..policy import Answer, LogProbs, sampled
from ..spaces import ControlVector, SoftPrompt
from ..tokens import Row
from .model import TorchModel
from .reading import Readable, Reading
from .scenes import Pool

Asked = tuple[Situation, np.random.Generator]
TELLING = 0.7  # temperature


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are sampled.

    Parameters
    ----------
    temperature
        Divides the logits.
    longest
        Most tokens of an answer.
    scored
        Whether answers say how likely the admissible commands are. What is only measured does not need it, and without
        it a turn costs half.
    """

    temperature: float = 1.0
    longest: int = 16
    scored: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class FreePolicy:
    """A policy of the torch backend that writes its answers; in everything else it is that policy."""

    inner: Readable
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

    @torch.inference_mode()
    def respond(self, asked: Sequence[Asked]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random stream."""
        encoder, answers = self.model.encoder, list[Answer]()
        rows, streams = encoder.encode([situation for situation, _ in asked]), iter([rng for _, rng in asked])
        for chunk in self.model.chunks(rows):
            with self.inner.reading(chunk) as reading:
                log_probs, last = reading.commands() if self.decoding.scored else _unscored(reading, chunk)
                written = write(reading, last, self.model, self.decoding, [next(streams) for _ in chunk])
            answers += [
                Answer(encoder.text(tokens), tokens, found.cpu().numpy())
                for tokens, found in zip(written, log_probs, strict=True)
            ]
        return answers

    def behind(self, context: SoftPrompt | str) -> FreePolicy:
        """Return this policy with a context in its prompt."""
        return FreePolicy(cast(Readable, behind(self.inner, context)), self.decoding)

    def steered(self, context: ControlVector) -> FreePolicy:
        """Return this policy with a control vector."""
        return FreePolicy(cast(Readable, steered(self.inner, context)), self.decoding)

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return tokens_of(self.inner, text)

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer some questions."""
        return told_by(self.inner, asked, longest)

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Hidden states where each admissible command ends, if the inner policy has a control vector."""
        return cast(Steered, self.inner).features(situations)

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, if the inner policy is behind a soft prompt."""
        return cast(SoftPrompted, self.inner).gradients(turns)


def _unscored(reading: Reading, rows: Sequence[Row]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Read moments without the trees behind them."""
    found = reading.read(range(len(rows)), [row.moment for row in rows])
    return [part.new_zeros(0) for part in found], [part[-1] for part in found]


@torch.inference_mode()
def tell(
    model: TorchModel, asked: Sequence[tuple[str, np.random.Generator]], longest: int, temperature: float = TELLING
) -> list[str]:
    """Let a model, with the adapter that it has, answer some questions in at most so many tokens."""
    encoder, texts = model.encoder, list[str]()
    nothing = ActionTree.build([(encoder.end,)])
    rows = [Row((), encoder.chat(question), nothing) for question, _ in asked]
    streams = iter([rng for _, rng in asked])
    for chunk in model.chunks(rows):
        pool = Pool({}, 0, {(): np.zeros(0, dtype=np.int64)})
        reading = Reading(model.trunk, model.trunk.whole, 0, chunk, pool)
        last = [part[-1] for part in reading.read(range(len(chunk)), [row.moment for row in chunk])]
        own = [next(streams) for _ in chunk]
        texts += [encoder.text(tokens) for tokens in write(reading, last, model, Decoding(temperature, longest), own)]
    return texts


def write(
    reading: Reading,
    last: Sequence[torch.Tensor],
    model: TorchModel,
    decoding: Decoding,
    streams: Sequence[np.random.Generator],
) -> list[tuple[int, ...]]:
    """Sample one response a row, the token that ends it included.

    Parameters
    ----------
    last
        What stands before the head at the end of each row, normed, shape (hidden,) each.
    streams
        One random stream a row: a uniform number for each token.
    """
    written: list[list[int]] = [[] for _ in last]
    going, states = list(range(len(last))), list(last)
    for left in reversed(range(decoding.longest)):
        logits_BV = (torch.stack(states) @ model.base.head.T).float() / decoding.temperature
        for place, probs_V in zip(going, logits_BV.softmax(-1).cpu().numpy(), strict=True):
            written[place].append(sampled(probs_V, streams[place]))
        going = [place for place in going if written[place][-1] != model.encoder.end]
        if not going or not left:
            break
        states = [new[-1] for new in reading.read(going, [written[place][-1:] for place in going])]
    return [tuple(tokens) for tokens in written]
