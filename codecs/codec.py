"""The server half of a codec: the step from an aggregate to a context, the teacher under it, and lessons in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import numpy as np

from ..policies.abilities import EMBEDDING, WRITING
from ..policies.policy import LogProbs, Policy
from ..protocol.config import ContextConfig, RunConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Vector, clip
from ..protocol.play import Turn
from ..protocol.plugins import POINTS
from ..protocol.records.summary import Lesson
from .context import Candidate, TeacherContext, divergence
from .encoder import Encoder, Parameters, load_encoder
from .natural_step import natural_step
from .tactics.policy import uniform_policy
from .trust_region import largest_share

MEASURED_TURNS = 160  # the most on which the trust region is measured
WEAKER = 0.5  # of the longest step inside the trust region: about a quarter of its KL


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

    def score_offsets(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """Return what the context adds to each command's score, or None if the codec is not additive."""

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return what was learned in words, strongest first; empty where coordinates have no names.

        Parameters
        ----------
        policy
            The policy without a context.
        turns
            Public turns, played without a context.
        """


@runtime_checkable
class HasParameters(Protocol):
    """A server half whose coordinates depend on public parameters, which it computes once, before the first cycle.

    Its encoder is a `fedoel.codecs.encoder.TakesParameters`.
    """

    def parameters(self, policy: Policy, turns: Sequence[Turn]) -> Parameters:
        """Compute the parameters, by name, from public turns of uniform play.

        Parameters
        ----------
        policy
            The base model, without an adapter.
        """

    def with_parameters(self, parameters: Parameters) -> Codec:
        """Return the codec with its parameters; they are part of its encoder's vocabulary."""


@dataclass(frozen=True, slots=True)
class ModelCodec:
    """The server half of codecs whose contexts act inside the model: the model is evaluated under each context.

    Where the encoder has blocks of coordinates, the cycle's context is one block, at one of two strengths. Codecs that
    know the teacher in closed form, or need no trust region, override what they compute otherwise.
    """

    encoder: Encoder

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Blocks of coordinates by name; empty where the encoder has none."""
        return getattr(self.encoder, "blocks", {})

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Take the natural gradient step, shortened to the trust region by line search."""
        weights, kl = self._bounded(policy, turns, before.weights, natural_step(aggregate, config), config.max_kl)
        return TeacherContext(weights, before.fisher + aggregate.vector.fisher, kl)

    @property
    def has_candidates(self) -> bool:
        """Whether the coordinates come in blocks."""
        return bool(self.blocks)

    def candidates(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Candidate]:
        """Return each block alone, once up to the border of the trust region and once at half that length."""
        candidates: list[Candidate] = []
        for name, block in self.blocks.items():
            alone = np.zeros_like(context.weights)
            # The trust region shortened all blocks together: a single block may be longer.
            alone[block] = len(self.blocks) * context.weights[block]
            full, kl = self._bounded(policy, turns, np.zeros_like(alone), alone, config.max_kl)
            candidates.append(Candidate(replace(context, weights=full, kl=kl), f"{name}, strength 1"))
            half = (WEAKER * full).astype(full.dtype)
            kl = divergence(self._log_probs(policy, _measured(turns), half), _measured(turns))
            candidates.append(Candidate(replace(context, weights=half, kl=kl), f"{name}, strength {WEAKER:g}"))
        return candidates

    def _bounded(
        self, policy: Policy, turns: Sequence[Turn], before: Vector, step: Vector, max_kl: float
    ) -> tuple[Vector, float]:
        """Add the largest share of a step that stays in the trust region; also return its KL."""
        measured = _measured(turns)

        def weights_at(share: float) -> Vector:
            return clip((before + share * step).astype(before.dtype), getattr(self.encoder, "radius", math.inf))

        def kl_at(share: float) -> float:
            return divergence(self._log_probs(policy, measured, weights_at(share)), measured)

        share, kl = largest_share(kl_at, max_kl)
        return weights_at(share), kl

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Apply the context to the policy."""
        return self.encoder.apply_context(policy, context.weights)

    def teacher_log_probs(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Evaluate the policy under the context."""
        return self.teacher(policy, context).score([turn.situation for turn in turns])

    def score_offsets(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """Return the log-probabilities of a uniform policy under an additive context: the offsets up to a constant."""
        if not self.encoder.is_additive:
            return None
        return self.teacher_log_probs(uniform_policy(), turns, context)

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return an empty list: these coordinates have no names."""
        return []

    def _log_probs(self, policy: Policy, turns: Sequence[Turn], weights: Vector) -> list[LogProbs]:
        return self.encoder.apply_context(policy, weights).score([turn.situation for turn in turns])


def _measured(turns: Sequence[Turn]) -> Sequence[Turn]:
    return turns[:: math.ceil(len(turns) / MEASURED_TURNS)]


def load_codec(name: str) -> Codec:
    """Return the server half of a codec; raises as `load_encoder` does, and `ConfigError` if it takes no encoder."""
    encoder = load_encoder(name)
    server_half = getattr(encoder, "server", "")
    if not server_half:
        return ModelCodec(encoder)
    make = cast(Callable[[Encoder], Codec], POINTS["codec"].find(server_half, {}))
    try:
        return make(encoder)
    except TypeError as error:
        raise ConfigError(f"codec.name {name!r}: its server half {server_half!r} takes no encoder: {error}") from error


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
            f"{config.policy.backend!r} does not offer that: use 'torch', or another codec"
        )
    # An additive codec, or one without required abilities, reweights listed commands, and in free decoding there are
    # none; but one that reads embeddings knows the answers that the policy samples.
    samples = EMBEDDING in codec.encoder.required_abilities
    reweights = codec.encoder.is_additive or not codec.encoder.required_abilities
    if config.policy.decoding == "free" and (WRITING not in abilities or (reweights and not samples)):
        raise ConfigError(
            "policy.decoding 'free' needs policy.backend 'torch' and a codec whose teacher writes, such as embedding, "
            "tactics-text, prefix, steering or text"
        )
    if config.policy.decoding == "free" and samples and config.distil.retention:
        raise ConfigError(f"codec.name {name!r} needs distil.retention 0 where policy.decoding is 'free'")
    if config.context.residual and (
        config.server.public != "prompts" or config.policy.decoding == "free" or not codec.encoder.is_additive
    ):
        raise ConfigError(
            "context.residual needs server.public 'prompts', policy.decoding 'tree' and a codec whose contexts add to "
            "the scores of commands, such as embedding or tactics"
        )
    # Retention differentiates through the student under the context, or adds score offsets to the student's scores.
    if config.distil.retention and not codec.encoder.is_additive and not codec.encoder.required_abilities:
        raise ConfigError(
            f"codec.name {name!r} needs distil.retention 0: its contexts change a policy's probabilities from outside, "
            "by more than an offset to each command's score"
        )
    return codec
