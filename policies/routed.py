"""A policy under several contexts: each situation is routed to one of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from ..protocol.situation import Situation
from .abilities import ANSWERS, abilities_of
from .policy import Answer, LogProbs, Policy, Speaker

Item = TypeVar("Item")
Result = TypeVar("Result")
ApplyContext = Callable[[Policy], Policy]
"""Returns a policy under a context."""


@dataclass(frozen=True, slots=True, eq=False)
class RoutedPolicy:
    """Routes each situation to one member, by a hash of the situation: evenly, and always to the same one."""

    members: Sequence[Policy]

    @property
    def version(self) -> str:
        return self.members[0].version

    @property
    def abilities(self) -> frozenset[str]:
        """To write answers, if all members do; they have their contexts already, and take no others."""
        return frozenset({ANSWERS}).intersection(*map(abilities_of, self.members))

    def member(self, situation: Situation) -> Policy:
        """Return the member that answers a situation."""
        key = f"{situation.goal}\n{situation.place_text}\n{situation.turn}"
        return self.members[zlib.crc32(key.encode()) % len(self.members)]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return self._routed(situations, situations, lambda policy, part: policy.score(part))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return self._routed(situations, situations, lambda policy, part: policy.tokens(part))

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random generator."""
        return self._routed([s for s, _ in asked], asked, lambda policy, part: cast(Speaker, policy).respond(part))

    def _routed(
        self, situations: Sequence[Situation], items: Sequence[Item], call: Callable[[Policy, list[Item]], list[Result]]
    ) -> list[Result]:
        return call_grouped([self.member(situation) for situation in situations], items, call)


def call_grouped(
    policies: Sequence[Policy], items: Sequence[Item], call: Callable[[Policy, list[Item]], list[Result]]
) -> list[Result]:
    """Evaluate each item by its policy, with one call per distinct policy; results are in the order of the items."""
    results: dict[int, Result] = {}
    for policy in {id(policy): policy for policy in policies}.values():
        indices = [index for index, other in enumerate(policies) if other is policy]
        results |= zip(indices, call(policy, [items[index] for index in indices]), strict=True)
    return [results[index] for index in range(len(items))]


def routed(members: Sequence[Policy]) -> Policy:
    """Return a policy that routes situations among members; a single member is returned as it is."""
    return members[0] if len(members) == 1 else RoutedPolicy(members)


def with_contexts(policy: Policy, contexts: Sequence[ApplyContext]) -> list[Policy]:
    """Return the policy under each context; the same context object gives the same policy object."""
    policies = {apply_context: apply_context(policy) for apply_context in dict.fromkeys(contexts)}
    return [policies[apply_context] for apply_context in contexts]


def route(policy: Policy, situation: Situation) -> Policy:
    """Return the policy that answers a situation: the member that a routed policy picks, or the policy itself."""
    return policy.member(situation) if isinstance(policy, RoutedPolicy) else policy
