"""The device's half of a codec: what its vectors mean, how they are made, and how their context is played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..policies.policy import Policy
from ..protocol.errors import ConfigError
from ..protocol.experience import BASE_COUNTERS, Counters, ExperienceVector, Vector, VectorSpec
from ..protocol.play import Trajectory, Turn, turns_of
from ..protocol.plugins import POINTS
from .prefix.encoder import PrefixEncoder
from .steering.encoder import SteeringEncoder
from .tactics.encoder import TacticsEncoder
from .words.encoder import WordsEncoder

Floats = NDArray[np.float64]


class Encoder(Protocol):
    """One codec on the device. A context w of shape ``(dimension,)`` steers the policy; every cycle starts at w = 0.

    Its half on the server is `fedoel.codecs.asked.AskedCodec`, unless it names another one in an attribute
    ``server = "module:Class"``: a text, so that devices need not import it.
    """

    @property
    def name(self) -> str:
        """Name of the codec."""
        ...

    @property
    def vocabulary(self) -> str:
        """Hash of what the coordinates mean; both sides must have the same."""
        ...

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Abilities that it needs of a policy beyond playing: see `fedoel.policies.abilities`."""
        ...

    @property
    def adds(self) -> bool:
        """Whether a context does nothing but add to the score of each command: then retention costs nothing."""
        ...

    def under(self, policy: Policy, context: Vector) -> Policy:
        """Return the policy with a context: the teacher, and what a device plays once a cycle has a context."""
        ...

    def sums(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum over turns what they say about the context.

        Parameters
        ----------
        policy
            What played the turns.
        advantages
            One number a turn.

        Returns
        -------
        gradient, fisher
            ``sum_t A_t grad_w log pi_w(a_t | x_t)`` and an estimate of ``sum_t E (grad_w log pi_w)^2``, at the context
            that was played, each of shape ``(dimension,)``.
        """
        ...


@runtime_checkable
class SaysWords(Protocol):
    """An encoder that sends words beside its vector, which nothing hides: runs must say `privacy.allow-plaintext`."""

    def words(self, policy: Policy, trajectories: Sequence[Trajectory]) -> list[str]:
        """What a device says about its games."""
        ...


POINT = POINTS["codec"]
MEMBERS = ("name", "vocabulary", "dimension", "needs", "adds", "under", "sums")
ALL: tuple[Encoder, ...] = (
    TacticsEncoder(),
    TacticsEncoder("tactics-text", spoken=True),
    PrefixEncoder(),
    SteeringEncoder(),
    WordsEncoder(),
    WordsEncoder("raw", raw=True),
)
ENCODERS: Mapping[str, Encoder] = MappingProxyType({encoder.name: encoder for encoder in ALL})


def load_encoder(name: str) -> Encoder:
    """Return the device's half of a codec: built in, installed, or one's own as ``module:Name``.

    Raises
    ------
    ConfigError
        If there is none of this name, or it is no encoder.
    """
    found = POINT.find(name, ENCODERS)
    encoder = found() if isinstance(found, type) else found
    if missing := [member for member in MEMBERS if not hasattr(encoder, member)]:
        raise ConfigError(f"{POINT.setting} {name!r} is no encoder: it has no {', '.join(missing)}")
    return cast(Encoder, encoder)


def encode(
    encoder: Encoder,
    policy: Policy,
    trajectories: Sequence[Trajectory],
    spec: VectorSpec,
    baseline: Vector,
    discount: float,
) -> ExperienceVector:
    """Turn trajectories into one experience vector, not yet clipped.

    Parameters
    ----------
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``: what the policy earns on public games.
    discount
        Factor a step on later rewards.
    """
    turns = turns_of(trajectories)
    advantages = advantages_of(trajectories, spec, baseline, discount)
    # What was no command was not chosen among commands: it says nothing about them.
    valid = [place for place, turn in enumerate(turns) if turn.valid]
    chosen = np.array([advantages[place] for place in valid], dtype=np.float64)
    gradient, fisher = encoder.sums(policy, [turns[place] for place in valid], chosen)
    counters = count(trajectories, spec, discount)
    return ExperienceVector(spec, gradient.astype(np.float32), fisher.astype(np.float32), counters)


def advantages_of(
    trajectories: Sequence[Trajectory], spec: VectorSpec, baseline: Vector, discount: float
) -> list[float]:
    """Return what each turn earned beyond the baseline of its family and step, all turns in a row; as in `encode`."""
    return [
        float(value - baseline[spec.families.index(trajectory.spec.family), min(step, spec.horizon - 1)])
        for trajectory in trajectories
        for step, value in enumerate(_returns(trajectory, discount))
    ]


def count(trajectories: Sequence[Trajectory], spec: VectorSpec, discount: float) -> Counters:
    """Count episodes by family: wins, turns, tokens, scores, and returns-to-go by step."""
    counters = np.zeros(spec.counters_shape)
    for trajectory in trajectories:
        row, returns = counters[spec.families.index(trajectory.spec.family)], _returns(trajectory, discount)
        steps = min(len(returns), spec.horizon)
        row[:BASE_COUNTERS] += (1, trajectory.won, len(returns), trajectory.prompt_tokens, trajectory.score)
        row[BASE_COUNTERS : BASE_COUNTERS + steps] += returns[:steps]
        row[BASE_COUNTERS + spec.horizon : BASE_COUNTERS + spec.horizon + steps] += 1
    return Counters(counters.astype(np.float32))


def returns_to_go(rewards: Sequence[float], discount: float) -> Floats:
    """Discounted sums of the rewards from each step to the end, shape ``(len(rewards),)``."""
    returns = np.zeros(len(rewards))
    value = 0.0
    for step in reversed(range(len(rewards))):
        value = rewards[step] + discount * value
        returns[step] = value
    return returns


def _returns(trajectory: Trajectory, discount: float) -> Floats:
    return returns_to_go([turn.reward for turn in trajectory.turns], discount)
