"""The device half of a codec: what its coordinates mean, its gradient estimate, and how a policy plays a context.

`encode` makes an experience vector of trajectories. With rewards r, after `rewarded`:

    G_t = sum_{s >= t} discount^(s - t) r_s        A_t = G_t - baseline[family, t]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..policies.policy import Policy
from ..protocol.errors import ConfigError, VectorError
from ..protocol.experience import BASE_COUNTERS, Counters, ExperienceVector, Floats, Vector, VectorSpec
from ..protocol.play import Trajectory, Turn, turns_of
from ..protocol.plugins import POINTS
from .embedding.encoder import EmbeddingEncoder
from .prefix import PrefixEncoder
from .steering import SteeringEncoder
from .tactics.encoder import TacticsEncoder
from .words.encoder import WordsEncoder

Parameters = Mapping[str, NDArray[Any]]


class Encoder(Protocol):
    """The device half of a codec. A context w of shape ``(dimension,)`` steers the policy; w = 0 starts every cycle.

    Its server half is `fedoel.codecs.codec.ModelCodec`, unless the encoder names another one in an attribute
    ``server = "module:Class"``. That is an import path, so that devices do not import the server half. `ModelCodec`
    reads two attributes that an encoder may have: `radius`, the largest norm of a context, and `blocks`, the slices of
    its blocks of coordinates by name.
    """

    @property
    def name(self) -> str:
        """Name of the codec."""

    @property
    def vocabulary(self) -> str:
        """Hash of the coordinates' meaning; device and server must agree on it."""

    @property
    def dimension(self) -> int:
        """Number of coordinates."""

    @property
    def required_abilities(self) -> frozenset[str]:
        """Abilities that a policy needs beyond scoring commands, named in `fedoel.policies.abilities`."""

    @property
    def is_additive(self) -> bool:
        """Whether a context only adds an offset to each command's score, so that retention costs no forward pass."""

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Return the policy under a context: the teacher, and what devices play in later exchanges of a cycle."""

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Estimate the policy gradient with respect to the context, and the diagonal of its Fisher information.

        Parameters
        ----------
        policy
            The policy that played the turns, with its context.
        turns
            On-policy turns, each with an answer among its choices.
        advantages
            Advantage of each turn, shape ``(len(turns),)``.

        Returns
        -------
        gradient, fisher
            ``sum_t A_t grad_w log pi_w(a_t | x_t)`` and an estimate of ``sum_t E (grad_w log pi_w)^2``, at the context
            that was played, each of shape ``(dimension,)``.
        """


@runtime_checkable
class SendsWords(Protocol):
    """An encoder that also sends texts, in the clear: a run must set `privacy.allow-plaintext`."""

    def words(self, policy: Policy, trajectories: Sequence[Trajectory]) -> list[str]:
        """Return the texts that a device sends about its trajectories."""


@runtime_checkable
class TakesParameters(Protocol):
    """An encoder whose coordinates depend on public parameters, which every request of the server brings."""

    def with_parameters(self, parameters: Parameters) -> Encoder:
        """Return the encoder with the parameters; raises `VectorError` if they are not its own."""


MEMBERS = (
    "name", "vocabulary", "dimension", "required_abilities", "is_additive", "apply_context", "gradient_and_fisher",
)  # fmt: skip
BUILT_IN: tuple[Encoder, ...] = (
    TacticsEncoder(),
    TacticsEncoder("tactics-text", spoken=True),
    EmbeddingEncoder(),
    PrefixEncoder(),
    SteeringEncoder(),
    WordsEncoder(),
    WordsEncoder("raw", raw=True),
)
ENCODERS: Mapping[str, Encoder] = MappingProxyType({encoder.name: encoder for encoder in BUILT_IN})


def load_encoder(name: str) -> Encoder:
    """Return the device half of a codec: built in, from an entry point, or ``module:Name``.

    Raises
    ------
    ConfigError
        If no codec has this name, or the object lacks a member of `Encoder`.
    """
    encoder = cast(Encoder, POINTS["codec"].find_instance(name, ENCODERS, "encoder", MEMBERS))
    if not isinstance(encoder.required_abilities, frozenset):
        raise ConfigError(
            f"codec.name {name!r}: required_abilities must be a frozenset, not {encoder.required_abilities!r}"
        )
    return encoder


def with_parameters(encoder: Encoder, parameters: Parameters) -> Encoder:
    """Return an encoder with the parameters of a request.

    Raises
    ------
    VectorError
        If it takes none and there are some, or they are not its own.
    """
    if isinstance(encoder, TakesParameters):
        return encoder.with_parameters(parameters)
    if parameters:
        raise VectorError(f"the codec {encoder.name!r} has no parameters, but a request brings {sorted(parameters)}")
    return encoder


def encode(
    encoder: Encoder,
    policy: Policy,
    trajectories: Sequence[Trajectory],
    spec: VectorSpec,
    baseline: Vector | None,
    discount: float,
) -> ExperienceVector:
    """Encode trajectories as one experience vector, before clipping.

    Parameters
    ----------
    policy
        The policy that played the trajectories, with its context.
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``: what the policy earns on other games. None
        for the mean of the other trajectories.
    discount
        Discount factor per step.
    """
    turns = turns_of(trajectories)
    advantages = advantages_of(trajectories, spec, baseline, discount)
    # A response without an admissible command has no log pi(a | x): its reward counts in the returns of earlier turns.
    scored = [index for index, turn in enumerate(turns) if turn.scored]
    scored_advantages = np.array([advantages[index] for index in scored], dtype=np.float64)
    gradient, fisher = encoder.gradient_and_fisher(policy, [turns[index] for index in scored], scored_advantages)
    counters = count(trajectories, spec, discount)
    return ExperienceVector(spec, gradient.astype(np.float32), fisher.astype(np.float32), counters)


def rewarded(trajectories: Sequence[Trajectory], refusal: float) -> Sequence[Trajectory]:
    """Return trajectories with the rewards that experience is made of: what a game does not take costs `refusal`."""
    if not refusal:
        return trajectories
    return [replace(each, turns=tuple(_rewarded(turn, refusal) for turn in each.turns)) for each in trajectories]


def _rewarded(turn: Turn, refusal: float) -> Turn:
    return replace(turn, reward=turn.reward - refusal) if turn.refused else turn


def advantages_of(
    trajectories: Sequence[Trajectory], spec: VectorSpec, baseline: Vector | None, discount: float
) -> list[float]:
    """Return-to-go minus the baseline of family and step, for all turns in order; parameters as in `encode`."""
    if baseline is None:
        return _leave_one_out(trajectories, spec, discount)
    return [
        float(value - baseline[spec.families.index(trajectory.spec.family), min(step, spec.horizon - 1)])
        for trajectory in trajectories
        for step, value in enumerate(_returns(trajectory, discount))
    ]


def _leave_one_out(trajectories: Sequence[Trajectory], spec: VectorSpec, discount: float) -> list[float]:
    """Return-to-go minus the mean of the other episodes of the family at that step, for all turns in order.

    Where no other episode got so far, the last step counts that one did; an episode without another one says nothing.
    A baseline of other episodes does not depend on the action, so that the gradient estimate stays unbiased (the
    leave-one-out estimate of Kool, van Hoof, Welling 2019).
    """
    totals, advantages = count(trajectories, spec, discount), list[float]()
    for trajectory in trajectories:
        own, row = count([trajectory], spec, discount), spec.families.index(trajectory.spec.family)
        visits = totals.visits[row] - own.visits[row]
        reached = int(np.count_nonzero(visits))  # every episode visits the first steps
        means = (totals.returns[row] - own.returns[row])[:reached] / visits[:reached]
        for step, value in enumerate(_returns(trajectory, discount)):
            advantages.append(float(value - means[min(step, reached - 1)]) if reached else 0.0)
    return advantages


def count(trajectories: Sequence[Trajectory], spec: VectorSpec, discount: float) -> Counters:
    """Count by family: episodes, wins, turns, prompt tokens, scores, and returns-to-go and visits by step."""
    counters = np.zeros(spec.counters_shape)
    for trajectory in trajectories:
        row, returns = counters[spec.families.index(trajectory.spec.family)], _returns(trajectory, discount)
        steps = min(len(returns), spec.horizon)
        row[:BASE_COUNTERS] += (1, trajectory.won, len(returns), trajectory.prompt_tokens, trajectory.score)
        row[BASE_COUNTERS : BASE_COUNTERS + steps] += returns[:steps]
        row[BASE_COUNTERS + spec.horizon : BASE_COUNTERS + spec.horizon + steps] += 1
    return Counters(counters.astype(np.float32))


def returns_to_go(rewards: Sequence[float], discount: float) -> Floats:
    """Discounted return from each step to the end of the episode, shape ``(len(rewards),)``."""
    returns = np.zeros(len(rewards))
    value = 0.0
    for step in reversed(range(len(rewards))):
        value = rewards[step] + discount * value
        returns[step] = value
    return returns


def _returns(trajectory: Trajectory, discount: float) -> Floats:
    return returns_to_go([turn.reward for turn in trajectory.turns], discount)
