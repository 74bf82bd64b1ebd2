"""What the server needs from a codec: a context out of an aggregate, the teacher that has it, and words for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from ..policies.abilities import WRITING
from ..policies.policy import LogProbs, Policy
from ..protocol.config import ContextConfig, RunConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate
from ..protocol.play import Turn
from ..protocol.plugins import POINTS
from ..protocol.records.summary import Lesson
from .asked import AskedCodec
from .context import Choice, TeacherContext
from .encoder import Encoder, load_encoder


class Codec(Protocol):
    """One codec on the server; `encoder` is its other half."""

    @property
    def encoder(self) -> Encoder:
        """The device's half, which also says how a context is played."""
        ...

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Step from one context to the next, inside the trust region.

        Parameters
        ----------
        policy
            The bare policy.
        turns
            Public turns, played as the aggregate's were: under `before`.

        Returns
        -------
        TeacherContext
            With the KL of this step alone.
        """
        ...

    @property
    def chooses(self) -> bool:
        """Whether the cycle's context is chosen, out of several, by play on the gate's games."""
        ...

    def choices(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Choice]:
        """What the cycle's context can become, where there is a choice.

        Parameters
        ----------
        policy
            The bare policy.
        turns
            Public turns, played without a context.
        """
        ...

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Return the policy with a context."""
        ...

    def answers(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """What the teacher says to turns that were played in the cycle's first exchange, without a context."""
        ...

    def tilts(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """What the context adds to the score of each command; None if it does more than to add."""
        ...

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """What was learned, in words, strongest first; nothing where the coordinates have no names."""
        ...


def load_codec(name: str) -> Codec:
    """Return the server's half of a codec; it raises what `load_encoder` raises."""
    encoder = load_encoder(name)
    half = getattr(encoder, "server", "")
    return cast(Callable[[Encoder], Codec], POINTS["codec"].find(half, {}))(encoder) if half else AskedCodec(encoder)


def check_codec(config: RunConfig, abilities: frozenset[str]) -> Codec:
    """Return the codec of a run, if its policy can do what the codec needs, and what the run wants of both.

    Parameters
    ----------
    abilities
        What policies of the run's backend can do beyond playing.

    Raises
    ------
    ConfigError
        If there is no such codec, or it does not go with the backend, with free decoding or with retention.
    """
    codec, name = load_codec(config.codec.name), config.codec.name
    if lacking := codec.encoder.needs - abilities:
        raise ConfigError(
            f"codec.name {name!r} needs a policy with {' and '.join(sorted(lacking))}, and policy.backend "
            f"{config.policy.backend!r} has none: use 'torch', or another codec"
        )
    # A codec that needs nothing of a policy works on its answers from outside: there is no text to work on.
    if config.policy.decoding == "free" and (WRITING not in abilities or not codec.encoder.needs):
        raise ConfigError(
            "policy.decoding 'free' needs policy.backend 'torch' and a codec whose teacher writes, such as "
            "tactics-text, prefix, steering or text"
        )
    # The student in training can only be put behind contexts that work inside of it.
    if config.distil.retention and not codec.encoder.adds and not codec.encoder.needs:
        raise ConfigError(
            f"codec.name {name!r} needs distil.retention 0: its contexts work on a policy's answers from outside, and "
            "do more than add to scores"
        )
    return codec
