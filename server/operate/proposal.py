"""What a fleet proposes for `[trust]` in the settings of its devices: as strict as the fleet's own run allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...protocol.config import RunConfig
from ...protocol.fleet.trust import MASKED, PLAIN, Trust
from ...protocol.options import read_options
from ...protocol.privacy.concentrated import epsilon_of, rho_of
from ...protocol.secagg.graph import COLLUDING
from ...protocol.settings import Scalar, to_table
from ...protocol.trials import SMALLEST, most_trials
from ...strategies.registry import load_strategy
from ...strategies.secure_groups import SecureGroups, fewest_of_group
from ...strategies.secure_mean import SecureMean
from ..safeguards import WIDE, RunSafeguards

LARGE = 10_000  # population for which the noise is computed: the share that is drawn stays, and more devices may come
# Settings that devices of release 0.1 lack, which refuse a bundle that names them.
LATER = ("health", "rounds", "least-trial")
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
        codecs=config.codec.name, health=config.trial.health,
    )  # fmt: skip
    if secure:
        trust = replace(trust, least_cohort=least_cohort(config), least_trial=least_trial(config))
    if config.privacy.mechanism in ("distributed", "local"):
        safeguards = RunSafeguards(replace(config, clients=LARGE, privacy=replace(config.privacy, population=LARGE)))
        noise = _rounded_down(SLACK * safeguards.noise_multiplier)
        epsilon = math.ceil(epsilon_of(safeguards.releases * rho_of(noise), config.privacy.delta))
        trust = replace(trust, least_noise=noise, epsilon_a_year=float(epsilon), delta=config.privacy.delta)
    usual = to_table(Trust())
    return {name: value for name, value in to_table(trust).items() if name not in LATER or value != usual[name]}


def least_cohort(config: RunConfig) -> int:
    """Return how many devices the smallest secure sum of experience has, at the fewest nodes that a run waits for."""
    if issubclass(strategy := load_strategy(config.strategy.name), SecureGroups):
        given = read_options(config.strategy.options, options := strategy.options())
        size = int(given.get("group_size", options["group_size"].default))
        return fewest_of_group(size, config.privacy.max_dropout)
    nodes = _nodes(config)
    return _fewest_survivors(config, nodes * config.strategy.fraction_train / config.strategy.exchanges, nodes)


def least_trial(config: RunConfig) -> int:
    """Return the same for answers to a trial, of which each part of the fleet gives some; 0 if it is no other number.

    A fleet that grows is asked in more parts, none of which has less than `SMALLEST` devices, and then in larger ones.
    """
    if not most_trials(config) or issubclass(load_strategy(config.strategy.name), SecureGroups):
        return 0
    nodes, parts = _nodes(config), round(1 / config.trial.share)
    cohort = nodes * config.strategy.fraction_train
    part = cohort / parts if math.floor(cohort) // SMALLEST >= parts else min(cohort, SMALLEST)
    fewest = _fewest_survivors(config, part, nodes)
    return 0 if fewest == least_cohort(config) else fewest


def _nodes(config: RunConfig) -> int:
    """Return the fewest nodes with which a run draws cohorts."""
    return config.privacy.population or config.strategy.min_available_nodes


def _fewest_survivors(config: RunConfig, sample: float, nodes: int) -> int:
    """Return how many devices are left of the smallest cohort, if as many drop out as may.

    With noise, as many of the population may be missing when a cohort is drawn, each device by its own chance.
    """
    staying = 1 - config.privacy.max_dropout
    cohort = float(math.floor(sample))
    if config.privacy.epsilon:
        drawn = math.floor(nodes * staying) * sample / nodes
        cohort = math.floor(drawn - WIDE * math.sqrt(drawn * (1 - sample / nodes)))
    return max(2, math.floor(cohort * staying))


def _rounded_down(noise: float) -> float:
    """Return a noise multiplier with two digits behind the point, for people to read."""
    return max(0.01, math.floor(100 * noise) / 100)
