"""A personal context: weights of tactics on top of the shared version, learned on one device and never sent.

It is learned from the turns that the device plays for the fleet, and used when the device plays for its owner. It takes
no part in play for the fleet, so that the device's vector stays on-policy. It is one natural gradient step, shrunk as
the server's is and inside the same trust region, and starts from zero with every version, whose weights have absorbed
what was learned before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codecs.encoder import encode, load_encoder, rewarded
from ..codecs.natural_step import natural_step
from ..codecs.tactics.policy import LARGEST_WEIGHT, within_trust_region
from ..policies.policy import Policy
from ..protocol.config import ContextConfig, RunConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec
from ..protocol.play import Trajectory, Turn, turns_of


def personalised(
    policy: Policy, trajectories: Sequence[Trajectory], spec: VectorSpec, baseline: Vector | None, config: RunConfig
) -> Policy:
    """Return the shared version under the personal context that a device has learned from its episodes with it."""
    encoder = load_encoder(config.codec.name)
    experience = rewarded(trajectories, config.games.refusal)
    vector = encode(encoder, policy, experience, spec, baseline, config.codec.discount)
    return encoder.apply_context(policy, personal_context(vector, turns_of(trajectories), config.context))


def personal_context(vector: ExperienceVector, turns: Sequence[Turn], config: ContextConfig) -> Vector:
    """Return the weights of a personal context, shape ``(dimension,)``.

    Parameters
    ----------
    vector
        The device's experience vector of the codec `tactics`, not clipped.
    turns
        The turns that the vector was encoded from; if there are none, all weights are zero.
    config
        Step size, damping and trust region, which are the server's.
    """
    step = np.clip(natural_step(Aggregate(vector, 1), config), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    if not turns:
        return np.zeros_like(step)
    scale, _ = within_trust_region(turns, step, config.max_kl)
    weights: Vector = (scale * step).astype(np.float32)
    return weights


def check_personal(config: RunConfig) -> None:
    """Check that the devices of a run can have personal contexts.

    Raises
    ------
    ConfigError
        If the run's codec is not `tactics`.
    """
    if config.codec.name != "tactics":
        raise ConfigError(
            f"a device's own context is one of tactics: codec.name must be 'tactics', not {config.codec.name!r}"
        )
