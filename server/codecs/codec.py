"""What the server needs from a codec: a context out of an aggregate, the teacher that has it, and words for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...client.encoders.encoder import Encoder, load_encoder
from ...client.encoders.steering import SteeringEncoder
from ...client.encoders.tactics import TacticsEncoder
from ...client.encoders.words import WordsEncoder
from ...client.policy.policy import LogProbs, Policy
from ...protocol import steering
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from .asked import AskedCodec
from .context import Choice, Context, Lesson
from .tactics import TacticsCodec
from .words import WordsCodec


class Codec(Protocol):
    """One codec on the server; `encoder` is its other half."""

    @property
    def encoder(self) -> Encoder:
        """The device's half, which also says how a context is played."""
        ...

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: Context
    ) -> Context:
        """Step from one context to the next, inside the trust region.

        Parameters
        ----------
        policy
            The bare policy.
        turns
            Public turns, played as the aggregate's were: under `before`.

        Returns
        -------
        Context
            With the KL of this step alone.
        """
        ...

    @property
    def chooses(self) -> bool:
        """Whether the cycle's context is chosen, out of several, by play on the gate's games."""
        ...

    def choices(self, policy: Policy, turns: Sequence[Turn], context: Context, config: ContextConfig) -> list[Choice]:
        """What the cycle's context can become, where there is a choice.

        Parameters
        ----------
        policy
            The bare policy.
        turns
            Public turns, played without a context.
        """
        ...

    def teacher(self, policy: Policy, context: Context) -> Policy:
        """Return the policy with a context."""
        ...

    def answers(self, policy: Policy, turns: Sequence[Turn], context: Context) -> list[LogProbs]:
        """What the teacher says to turns that were played in the cycle's first exchange, without a context."""
        ...

    def tilts(self, turns: Sequence[Turn], context: Context) -> list[LogProbs] | None:
        """What the context adds to the score of each command; None if it does more than to add."""
        ...

    def lessons(self, context: Context) -> list[Lesson]:
        """What was learned, in words, strongest first; nothing where the coordinates have no names."""
        ...


def load_codec(name: str) -> Codec:
    """Return the server's half of a codec; it raises what `load_encoder` raises."""
    encoder = load_encoder(name)
    if isinstance(encoder, TacticsEncoder):
        return TacticsCodec(encoder)
    if isinstance(encoder, WordsEncoder):
        return WordsCodec(encoder)
    return AskedCodec(encoder, steering.parts()) if isinstance(encoder, SteeringEncoder) else AskedCodec(encoder)
