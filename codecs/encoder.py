"""The device half of a codec: what its coordinates mean, its gradient estimate, and how a policy plays a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

from ..policies.policy import Policy
from ..protocol.errors import ConfigError
from ..protocol.experience import Floats, Vector
from ..protocol.play import Trajectory, Turn
from ..protocol.plugins import POINTS
from .prefix import PrefixEncoder
from .steering import SteeringEncoder
from .tactics.encoder import TacticsEncoder
from .words.encoder import WordsEncoder


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
            On-policy turns, each with an admissible command.
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


POINT = POINTS["codec"]
MEMBERS = (
    "name", "vocabulary", "dimension", "required_abilities", "is_additive", "apply_context", "gradient_and_fisher",
)  # fmt: skip
BUILT_IN: tuple[Encoder, ...] = (
    TacticsEncoder(),
    TacticsEncoder("tactics-text", spoken=True),
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
    plugin = POINT.find(name, ENCODERS)
    encoder = plugin() if isinstance(plugin, type) else plugin
    if missing := [member for member in MEMBERS if not hasattr(encoder, member)]:
        raise ConfigError(f"{POINT.setting} {name!r} is no encoder: it has no {', '.join(missing)}")
    return cast(Encoder, encoder)
