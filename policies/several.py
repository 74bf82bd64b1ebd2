"""A policy with several contexts: every turn is answered with one of them."""

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
Found = TypeVar("Found")
Under = Callable[[Policy], Policy]
"""Gives a policy a context."""


@dataclass(frozen=True, slots=True, eq=False)
class SeveralPolicy:
    """Hands every situation to one of its members. Which one follows from the situation alone, evenly and for good."""

    members: Sequence[Policy]

    @property
    def abilities(self) -> frozenset[str]:
        """To write answers, if all members do; they have their contexts already, and take no others."""
        return frozenset({ANSWERS}).intersection(*map(abilities_of, self.members))

    @property
    def version(self) -> str:
        return self.members[0].version

    def member(self, situation: Situation) -> Policy:
        """Return the one that answers."""
        key = f"{situation.goal}\n{situation.place_text}\n{situation.turn}"
        return self.members[zlib.crc32(key.encode()) % len(self.members)]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return self._shared(situations, situations, lambda policy, part: policy.score(part))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return self._shared(situations, situations, lambda policy, part: policy.tokens(part))

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random stream."""
        return self._shared([s for s, _ in asked], asked, lambda policy, part: cast(Speaker, policy).respond(part))

    def _shared(
        self, situations: Sequence[Situation], items: Sequence[Item], ask: Callable[[Policy, list[Item]], list[Found]]
    ) -> list[Found]:
        return ask_each([self.member(situation) for situation in situations], items, ask)


def ask_each(
    policies: Sequence[Policy], items: Sequence[Item], ask: Callable[[Policy, list[Item]], list[Found]]
) -> list[Found]:
    """Ask policies, of which there is one for every item, in one call for all items of the same policy."""
    answers: dict[int, Found] = {}
    for policy in {id(policy): policy for policy in policies}.values():
        own = [place for place, other in enumerate(policies) if other is policy]
        answers |= zip(own, ask(policy, [items[place] for place in own]), strict=True)
    return [answers[place] for place in range(len(items))]


def several(members: Sequence[Policy]) -> Policy:
    """Return one policy that answers with all of these."""
    return members[0] if len(members) == 1 else SeveralPolicy(members)


def each_under(policy: Policy, contexts: Sequence[Under]) -> list[Policy]:
    """Give a policy each of some contexts; those that are the same one make the same policy."""
    made = {under: under(policy) for under in dict.fromkeys(contexts)}
    return [made[under] for under in contexts]


def pick(policy: Policy, situation: Situation) -> Policy:
    """Return the policy that answers a situation: one of several, or this one."""
    return policy.member(situation) if isinstance(policy, SeveralPolicy) else policy
