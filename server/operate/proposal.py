"""What a fleet proposes for `[trust]` in the settings of its devices: as strict as the fleet's own run allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...protocol.config import RunConfig
from ...protocol.fleet.trust import MASKED, PLAIN, Trust
from ...protocol.privacy.concentrated import epsilon_of, rho_of
from ...protocol.secagg.graph import COLLUDING
from ...protocol.settings import Scalar, to_table
from ...protocol.trials import SMALLEST, most_trials
from ...strategies.registry import load_strategy
from ...strategies.secure_groups import SecureGroups
from ...strategies.secure_mean import SecureMean
from ..safeguards import WIDE, RunSafeguards

LARGE = 10_000  # population for which the noise is computed: the share that is drawn stays, and more devices may come
LATER = ("health", "rounds")  # settings that devices of release 0.1 lack, which refuse a bundle that names them
SLACK = 0.5  # of the run's noise: a device counts the shares of the members only that it has checked


def proposal(config: RunConfig) -> Mapping[str, Scalar]:
    """Return the settings of `Trust` that a run works with, also when devices have joined or left.

    Parameters
    ----------
    config
        The run's configuration; `clients` is not used.

    Raises
    ------
    ConfigError
        If there is no such strategy.
    PrivacyError
        If no noise meets the run's budget.
    """
    secure = issubclass(load_strategy(config.strategy.name), SecureMean)
    trust = Trust(
        colluding=max(config.privacy.colluding, COLLUDING), verbs=MASKED if secure else " ".join(PLAIN),
        least_cohort=least_cohort(config) if secure else 2, codecs=config.codec.name, health=config.trial.health,
    )  # fmt: skip
    if config.privacy.mechanism in ("distributed", "local"):
        safeguards = RunSafeguards(replace(config, clients=LARGE, privacy=replace(config.privacy, population=LARGE)))
        noise = _rounded_down(SLACK * safeguards.noise_multiplier)
        epsilon = math.ceil(epsilon_of(safeguards.releases * rho_of(noise), config.privacy.delta))
        trust = replace(trust, least_noise=noise, epsilon_a_year=float(epsilon), delta=config.privacy.delta)
    usual = to_table(Trust())
    return {name: value for name, value in to_table(trust).items() if name not in LATER or value != usual[name]}


def least_cohort(config: RunConfig) -> int:
    """Return how many devices the smallest secure sum of a run has, at the fewest nodes that the server waits for."""
    if issubclass(load_strategy(config.strategy.name), SecureGroups):
        return 2
    nodes = config.privacy.population or config.strategy.min_available_nodes
    sample = nodes * config.strategy.fraction_train / config.strategy.exchanges
    if most_trials(config) and round(1 / config.trial.share) > 1:
        sample = min(sample, SMALLEST)  # of a part of a trial, in a fleet that has grown
    spread = WIDE * math.sqrt(sample) if config.privacy.epsilon else 0.0
    return max(2, math.floor((math.floor(sample) - spread) * (1 - config.privacy.max_dropout)))


def _rounded_down(noise: float) -> float:
    """Return a noise multiplier with two digits behind the point, for people to read."""
    return max(0.01, math.floor(100 * noise) / 100)
