"""The barrier: one batch for all, ordered by client, and nobody is left waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from fedoel.codecs.steering import SPACE as STEERING
from fedoel.policies.abilities import ANSWERS, abilities_of, behind, length, speaker, steered, tell
from fedoel.policies.policy import Answer, LogProbs, Policy
from fedoel.policies.spaces import ControlVector
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.situation import Situation
from fedoel.simulations.batching import Batcher, BatchingPolicy

WAIT = 10.0


@dataclass
class Recorder:
    """A policy that answers with the number in each situation's goal, and remembers its batches."""

    version: str = "v1"
    batches: list[list[int]] = field(default_factory=list)
    fails_at: int = -1
    abilities: frozenset[str] = frozenset()

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        if len(self.batches) == self.fails_at:
            raise ValueError("broken")
        self.batches.append([int(s.goal) for s in situations])
        return [np.array([float(s.goal)], np.float32) for s in situations]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)


def situation(number: int) -> Situation:
    return Situation(str(number), "", "", "", "", (), "", (), frozenset(), (), "", ("look",), 0, 5)


def play(batcher: Batcher, policy: BatchingPolicy, client: int, turns: int, fast: bool) -> list[float]:
    with batcher.playing(client):
        answers = []
        for turn in range(turns):
            time.sleep(0 if fast else 0.005)
            answers += [float(a[0]) for a in policy.score([situation(10 * client + turn), situation(1000 + client)])]
        return answers


def together(batcher: Batcher, jobs: dict[int, Callable[[], Any]]) -> dict[int, Future[Any]]:
    batcher.admit(list(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = {client: pool.submit(job) for client, job in jobs.items()}
    return futures


def test_every_turn_is_one_batch_in_order_of_clients() -> None:
    inner, batcher = Recorder(), Batcher()
    policy = batcher.wrap(inner)
    turns = {0: 3, 1: 1, 2: 2, 3: 0}
    jobs = {c: lambda c=c, n=n: play(batcher, policy, c, n, fast=c % 2 == 0) for c, n in turns.items()}
    futures = together(batcher, dict(reversed(jobs.items())))
    assert inner.batches == [[0, 1000, 10, 1001, 20, 1002], [1, 1000, 21, 1002], [2, 1000]]
    for client, count in turns.items():
        expected = [n for turn in range(count) for n in (10 * client + turn, 1000 + client)]
        assert futures[client].result(WAIT) == expected


def test_a_client_that_dies_leaves_the_barrier() -> None:
    inner, batcher = Recorder(), Batcher()
    policy = batcher.wrap(inner)

    def dies() -> None:
        with batcher.playing(1):
            policy.score([situation(1)])
            raise RuntimeError("gone")

    futures = together(batcher, {0: lambda: play(batcher, policy, 0, 3, fast=True), 1: dies})
    assert len(futures[0].result(WAIT)) == 6
    assert isinstance(futures[1].exception(WAIT), RuntimeError)
    assert [len(batch) for batch in inner.batches] == [3, 2, 2]


def test_an_exception_of_the_model_reaches_every_client() -> None:
    inner, batcher = Recorder(fails_at=1), Batcher()
    policy = batcher.wrap(inner)
    futures = together(batcher, {c: partial(play, batcher, policy, c, 3, fast=True) for c in range(4)})
    assert [str(future.exception(WAIT)) for future in futures.values()] == ["broken"] * 4


def test_policies_are_not_mixed() -> None:
    first, second, batcher = Recorder("v1"), Recorder("v2"), Batcher()
    policies = [batcher.wrap(first), batcher.wrap(second)]
    together(batcher, {c: partial(play, batcher, policies[c % 2], c, 1, fast=True) for c in range(4)})
    assert first.batches == [[0, 1000, 20, 1002]]
    assert second.batches == [[10, 1001, 30, 1003]]


def test_calls_from_outside_go_straight_through() -> None:
    inner, batcher = Recorder(), Batcher()
    batcher.admit([0])
    policy = batcher.wrap(inner)
    assert policy.score([situation(7)])[0].tolist() == [7]
    assert policy.version == "v1"


class Writer(Recorder):
    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        self.batches.append([int(s.goal) for s, _ in asked])
        return [Answer(s.goal, (), np.zeros(0, np.float32)) for s, _ in asked]


def test_a_batched_policy_can_do_what_the_policy_inside_says() -> None:
    """The wrapper has every method, so that methods would say nothing; a plug-in that says nothing can do nothing."""
    space = ControlVector(STEERING, np.zeros(STEERING.dimension, np.float32))
    for inner in (Recorder(), Writer(), ModuleType("a plug-in without abilities")):
        policy = Batcher().wrap(cast(Policy, inner))
        assert abilities_of(policy) == frozenset() and speaker(policy) is None
        assert length(policy, "one two") == 2
        for use in (lambda p: behind(p, "advice"), lambda p: steered(p, space), lambda p: tell(p, [], 5)):
            with pytest.raises(ConfigError, match=r"needs policy\.backend 'torch'"):
                use(policy)
    writer = Writer(abilities=frozenset({ANSWERS}))
    wrapped = speaker(Batcher().wrap(writer))
    assert wrapped is not None
    assert [answer.text for answer in wrapped.respond([(situation(7), np.random.default_rng(0))])] == ["7"]


def test_a_client_that_was_not_admitted_is_refused() -> None:
    batcher = Batcher()
    with batcher.playing(3), pytest.raises(FedoelError, match="admitted"):
        batcher.wrap(Recorder()).score([situation(1)])


def test_many_clients_repeat_to_the_batch() -> None:
    def batches() -> list[list[int]]:
        inner, batcher = Recorder(), Batcher()
        policy = batcher.wrap(inner)
        together(batcher, {c: partial(play, batcher, policy, c, c % 5, fast=c % 3 > 0) for c in range(40)})
        return inner.batches

    assert batches() == batches()
