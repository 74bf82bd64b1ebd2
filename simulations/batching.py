"""One model for many clients: their calls wait for each other and are answered as one batch.

A barrier, not a queue with a time limit: a batch goes to the model when every live client waits or has finished, and
its requests are ordered by client. What is in a batch therefore never depends on how fast a thread ran, and a run can
be repeated to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..policies.abilities import SoftPrompted, Steered, abilities_of, behind, embedding, length, steered, tell
from ..policies.policy import Answer, LogProbs, Policy, Sampler, Speaker
from ..policies.spaces import ControlVector, SoftPrompt
from ..protocol.errors import FedoelError
from ..protocol.play import Turn
from ..protocol.situation import Situation

Call = Callable[[Policy, Sequence[Any]], list[Any]]
_client: ContextVar[int | None] = ContextVar("client", default=None)


@dataclass(eq=False)
class _Request:
    """One client's waiting call, and its future answers: one for each item."""

    policy: Policy
    call: Call
    items: Sequence[Any]
    answers: Future[list[Any]] = field(default_factory=Future)


@dataclass
class Batcher:
    """The barrier of one process. The grid says which clients play; wrapped policies say when they wait."""

    _live: set[int] = field(default_factory=set)
    _waiting: dict[int, _Request] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def admit(self, clients: Sequence[int]) -> None:
        """Register all clients before any of them starts; otherwise the first batch would leave without the last."""
        with self._lock:
            self._live.update(clients)

    @contextmanager
    def playing(self, client: int) -> Iterator[None]:
        """Register the current thread as this client; unregister it at the end, also after an exception."""
        token = _client.set(client)
        try:
            yield
        finally:
            _client.reset(token)
            self.leave(client)

    def leave(self, client: int) -> None:
        """Expect nothing more from a client that finished or died."""
        with self._lock:
            self._live.discard(client)
            self._answer_if_complete()

    def wrap(self, policy: Policy) -> BatchingPolicy:
        """Return a policy whose calls are batched with those of the other clients."""
        return BatchingPolicy(policy, self)

    def ask(self, policy: Policy, call: Call, items: Sequence[Any]) -> list[Any]:
        """Wait until every live client waits too, and return this call's part of the batch."""
        client = _client.get()
        if client is None:
            # The server's own calls are not part of any cohort.
            return call(policy, items)
        request = _Request(policy, call, items)
        with self._lock:
            if client not in self._live:
                raise FedoelError(f"client {client} plays without having been admitted")
            self._waiting[client] = request
            self._answer_if_complete()
        return request.answers.result()

    def _answer_if_complete(self) -> None:
        """Answer everybody, in whichever thread made the batch complete. The lock is held: nobody else can run."""
        if not self._waiting or self._live - self._waiting.keys():
            return
        batches: dict[tuple[int, Call], list[_Request]] = {}
        for client in sorted(self._waiting, reverse=True):
            request = self._waiting.pop(client)
            batches.setdefault((id(request.policy), request.call), []).append(request)
        for requests in batches.values():
            _answer(requests[::-1])


@dataclass(frozen=True, slots=True, eq=False)
class BatchingPolicy:
    """A policy whose calls are answered together with those of all other clients."""

    inner: Policy
    batcher: Batcher

    @property
    def abilities(self) -> frozenset[str]:
        """The inner policy's abilities."""
        return abilities_of(self.inner)

    @property
    def version(self) -> str:
        """The inner policy's version."""
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return self.batcher.ask(self.inner, _score, situations)

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's commands."""
        return self.batcher.ask(self.inner, _embed, situations)

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities of each situation's commands, and their embeddings."""
        return self.batcher.ask(self.inner, _score_and_embed, situations)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; counting needs no batch."""
        return self.inner.tokens(situations)

    def behind(self, context: SoftPrompt | str) -> BatchingPolicy:
        """Return the inner policy with a context in its prompt, batched too."""
        return self.batcher.wrap(behind(self.inner, context))

    def steered(self, context: ControlVector) -> BatchingPolicy:
        """Return the inner policy with a control vector, batched too."""
        return self.batcher.wrap(steered(self.inner, context))

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return length(self.inner, text)

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Let one client's policy write about its games, when it has played."""
        return tell(self.inner, asked, longest)

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Directions in the hidden state that make one client's commands more likely; it asks when it has played."""
        return cast(Steered, self.inner).features(situations)

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of one client's turns, which it asks for when it has played."""
        return cast(SoftPrompted, self.inner).gradients(turns)

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, those of all clients side by side."""
        return self.batcher.ask(self.inner, _respond, asked)

    def sample(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[list[Answer]]:
        """Write several answers to each situation, those of all clients side by side."""
        return self.batcher.ask(self.inner, _sample, asked)


def _score(policy: Policy, situations: Sequence[Situation]) -> list[LogProbs]:
    return policy.score(situations)


def _embed(policy: Policy, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
    return embedding(policy).embed(situations)


def _score_and_embed(policy: Policy, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
    return embedding(policy).score_and_embed(situations)


def _respond(policy: Policy, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
    return cast(Speaker, policy).respond(asked)


def _sample(policy: Policy, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[list[Answer]]:
    return cast(Sampler, policy).sample(asked)


def _answer(requests: Sequence[_Request]) -> None:
    """Call the policy once, and give each request its part, or the exception."""
    try:
        items = [item for request in requests for item in request.items]
        answers = iter(requests[0].call(requests[0].policy, items))
    except BaseException as failure:  # even an interrupt: a client that is never woken would hang the run
        for request in requests:
            request.answers.set_exception(failure)
    else:
        for request in requests:
            request.answers.set_result(list(islice(answers, len(request.items))))
