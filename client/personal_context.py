"""A device's own context: weights of tactics on top of the shared version, learned from its own turns and never sent.

The turns are those that it plays for the fleet anyway, under the shared version and the request's context. Its own
context takes no part in them, so that its vector stays on-policy; it is used when the device plays for its owner. It is
one natural gradient step long, shrunk where it could be chance and inside the same trust region as the server's, and
starts anew with every version: what was learned is in the weights by then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codecs.encode import encode
from ..codecs.encoder import load_encoder
from ..codecs.natural_step import natural_step
from ..codecs.tactics.step import LARGEST_WEIGHT, within_trust_region
from ..policies.policy import Policy
from ..protocol.config import ContextConfig, RunConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec
from ..protocol.play import Trajectory, Turn, turns_of


def personalised(
    policy: Policy, played: Sequence[Trajectory], spec: VectorSpec, baseline: Vector, config: RunConfig
) -> Policy:
    """Give a shared version what a device has learned for itself from the episodes that it played with it."""
    encoder = load_encoder(config.codec.name)
    vector = encode(encoder, policy, played, spec, baseline, config.codec.discount)
    return encoder.apply_context(policy, personal_context(vector, turns_of(played), config.context))


def personal_context(vector: ExperienceVector, turns: Sequence[Turn], config: ContextConfig) -> Vector:
    """Return the weights that a device keeps for itself, shape ``(dimension,)``.

    Parameters
    ----------
    vector
        Its own experience of the codec `tactics`, not clipped.
    turns
        What the vector is about; without any, the device has nothing of its own.
    """
    full = np.clip(natural_step(Aggregate(vector, 1), config), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    if not turns:
        return np.zeros_like(full)
    scale, _ = within_trust_region(turns, full, config.max_kl)
    kept: Vector = (scale * full).astype(np.float32)
    return kept


def check_personal(config: RunConfig) -> None:
    """Make sure that devices of a run can have contexts of their own.

    Raises
    ------
    ConfigError
        If the run's codec is not `tactics`: their own contexts are weights of tactics.
    """
    if config.codec.name != "tactics":
        raise ConfigError(
            f"a device's own context is one of tactics: codec.name must be 'tactics', not {config.codec.name!r}"
        )
