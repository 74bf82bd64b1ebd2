"""The server half of a codec: the step from an aggregate to a context, the teacher under it, and lessons in words."""

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
from .context import Candidate, TeacherContext
from .encoder import Encoder, load_encoder
from .model_codec import ModelCodec


class Codec(Protocol):
    """The server half of a codec; `encoder` is its device half."""

    @property
    def encoder(self) -> Encoder:
        """The device half, which also applies contexts to policies."""

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take one natural gradient step in the context, inside the trust region.

        Parameters
        ----------
        aggregate
            Gradient and Fisher diagonal, summed over the cohort.
        policy
            The policy without a context.
        turns
            Public turns, played under `before` as the aggregate's were.
        before
            The context that the aggregate was estimated at.

        Returns
        -------
        TeacherContext
            The next context; its `kl` is that of this step alone.
        """

    @property
    def has_candidates(self) -> bool:
        """Whether the cycle's context is selected among candidates, by play on the gate's games."""

    def candidates(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Candidate]:
        """Return the contexts to select from at the end of a cycle; empty where the codec has only one.

        Parameters
        ----------
        policy
            The policy without a context.
        turns
            Public turns, played without a context.
        """

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Return the policy under a context."""

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Return the teacher's log-probabilities of each turn's commands; the turns were played without a context."""

    def score_offsets(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """Return what the context adds to each command's score, or None if the codec is not additive."""

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """Return what was learned in words, strongest first; empty where coordinates have no names."""


def load_codec(name: str) -> Codec:
    """Return the server half of a codec; raises as `load_encoder` does."""
    encoder = load_encoder(name)
    server_half = getattr(encoder, "server", "")
    if not server_half:
        return ModelCodec(encoder)
    return cast(Callable[[Encoder], Codec], POINTS["codec"].find(server_half, {}))(encoder)


def check_codec(config: RunConfig, abilities: frozenset[str]) -> Codec:
    """Return the codec of a run, after checking it against backend, decoding and retention.

    Parameters
    ----------
    abilities
        Abilities of the policies of the run's backend.

    Raises
    ------
    ConfigError
        If there is no such codec, or it does not go with the backend, with free decoding or with retention.
    """
    codec, name = load_codec(config.codec.name), config.codec.name
    if lacking := codec.encoder.required_abilities - abilities:
        raise ConfigError(
            f"codec.name {name!r} needs a policy with {' and '.join(sorted(lacking))}, and policy.backend "
            f"{config.policy.backend!r} has none: use 'torch', or another codec"
        )
    # A codec without required abilities reweights listed commands; in free decoding there is no list to reweight.
    if config.policy.decoding == "free" and (WRITING not in abilities or not codec.encoder.required_abilities):
        raise ConfigError(
            "policy.decoding 'free' needs policy.backend 'torch' and a codec whose teacher writes, such as "
            "tactics-text, prefix, steering or text"
        )
    # Retention differentiates through the student under the context, or adds score offsets to the student's scores.
    if config.distil.retention and not codec.encoder.is_additive and not codec.encoder.required_abilities:
        raise ConfigError(
            f"codec.name {name!r} needs distil.retention 0: its contexts change a policy's probabilities from outside, "
            "by more than an offset to each command's score"
        )
    return codec
