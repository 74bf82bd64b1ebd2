"""A policy with several contexts: every turn is answered with one of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from ...protocol.situation import Situation
from .policy import Answer, LogProbs, Policy, Speaker

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, eq=False)
class SeveralPolicy:
    """Hands every situation to one of its members. Which one follows from the situation alone, evenly and for good."""

    members: Sequence[Policy]

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

    def _shared(
        self, situations: Sequence[Situation], items: Sequence[Item], ask: Callable[[Policy, list[Item]], list[Found]]
    ) -> list[Found]:
        """Ask every member for its part, in one call each."""
        answers: dict[int, Found] = {}
        for policy, own in shares(self, situations):
            answers |= dict(zip(own, ask(policy, [items[place] for place in own]), strict=True))
        return [answers[place] for place in range(len(items))]


@dataclass(frozen=True, slots=True, eq=False)
class SeveralSpeaker(SeveralPolicy):
    """One whose members write their answers."""

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random stream."""
        return self._shared([s for s, _ in asked], asked, lambda policy, part: cast(Speaker, policy).respond(part))


def several(members: Sequence[Policy]) -> Policy:
    """Return one policy that answers with all of these."""
    if len(members) == 1:
        return members[0]
    return (SeveralSpeaker if isinstance(members[0], Speaker) else SeveralPolicy)(members)


def shares(policy: Policy, situations: Sequence[Situation]) -> list[tuple[Policy, list[int]]]:
    """Say who answers what: each of several policies, or this one, with the places of its situations."""
    if not isinstance(policy, SeveralPolicy):
        return [(policy, list(range(len(situations))))]
    chosen = [policy.member(situation) for situation in situations]
    found = [(member, [n for n, other in enumerate(chosen) if other is member]) for member in policy.members]
    return [(member, own) for member, own in found if own]
