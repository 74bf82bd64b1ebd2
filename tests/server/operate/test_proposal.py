"""What a fleet proposes to its devices is as strict as its run allows, and no stricter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet.trust import Asked, Trust
from fedoel.protocol.privacy.concentrated import epsilon_of, rho_of
from fedoel.protocol.secagg.graph import choose_graph
from fedoel.protocol.settings import from_table
from fedoel.protocol.trials import TrialTerms
from fedoel.server.operate.proposal import proposal
from fedoel.server.safeguards import RunSafeguards

SPEC = VectorSpec("tactics", 324, "vocabulary", "v1", ("coin",), 8, 50.0, 200.0)
SECURE: dict[str, Scalar] = {"strategy.name": "secure-mean", "strategy.min-available-nodes": 5}
NOISY: dict[str, Scalar] = {
    **SECURE, "privacy.mechanism": "distributed", "privacy.epsilon": 4.0, "cycles": 5, "server.public": "games",
}  # fmt: skip


def proposed(settings: dict[str, Any]) -> Trust:
    return from_table(Trust, proposal(RunConfig.from_flat(settings)))


@pytest.mark.parametrize(
    ("settings", "verbs"),
    [
        ({"strategy.name": "mean"}, "experience trial"),
        ({"strategy.name": "trimmed-mean"}, "experience trial"),
        (SECURE, "masked"),
        ({"strategy.name": "grouped-secure"}, "masked"),
        ({"strategy.name": "fedoel.simulations.loopback_sum:NotedMean"}, "masked"),
    ],
)
def test_verbs_follow_from_the_strategy(settings: dict[str, Scalar], verbs: str) -> None:
    trust = proposed(settings)
    assert trust.verbs == verbs and trust.codecs == "tactics" and not trust.health
    assert proposed({**settings, "trial.health": True}).health
    proposal_of_run = proposal(RunConfig.from_flat(settings))
    assert not {"health", "rounds"} & proposal_of_run.keys(), "devices of release 0.1 could not read it"
    assert (trust.least_noise, trust.epsilon_a_year) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "least", "trial"),
    [
        ({"server.public": "games"}, 4, 0),
        ({"trial.share": 1.0}, 4, 0),
        ({}, 4, 3),  # of a part of a trial, once the fleet has grown
        ({"strategy.min-available-nodes": 2}, 2, 0),
        ({"strategy.min-available-nodes": 100}, 80, 40),
        ({"strategy.min-available-nodes": 100, "trial.share": 0.1}, 80, 8),
        ({"strategy.min-available-nodes": 100, "strategy.fraction-train": 0.5}, 40, 20),
        ({"strategy.min-available-nodes": 100, "strategy.exchanges": 4, "trial.share": 1.0}, 20, 80),
        ({"privacy.population": 1000}, 800, 400),
        ({"strategy.name": "grouped-secure"}, 3, 0),
        ({"strategy.name": "trusted-secure", "strategy.options": "group-size=10"}, 8, 0),
    ],
)
def test_the_smallest_cohorts_are_those_of_the_fewest_nodes(
    settings: dict[str, Scalar], least: int, trial: int
) -> None:
    trust = proposed({**SECURE, **settings})
    assert (trust.least_cohort, trust.least_trial) == (least, trial)


@pytest.mark.parametrize(("population", "fraction"), [(60, 1.0), (1000, 1.0), (1000, 0.1), (10_000, 1.0)])
def test_devices_of_a_run_with_noise_allow_the_cohorts_of_a_fleet_of_which_some_are_missing(
    population: int, fraction: float
) -> None:
    """A server draws a cohort when all but a fifth of the population are there, and a fifth of that may drop out."""
    settings = {**NOISY, "privacy.population": population, "strategy.fraction-train": fraction}
    trust, safeguards = proposed(settings), RunSafeguards(RunConfig.from_flat(settings))
    present = next(nodes for nodes in range(population) if safeguards.enough(nodes))
    mean = present * safeguards.chance()
    few = math.floor(mean - 4 * math.sqrt(mean * (1 - safeguards.chance())))
    assert safeguards.plan(SPEC, few).minimum >= trust.least_cohort
    assert trust.least_cohort > 0.3 * safeguards.plan(SPEC, round(mean)).minimum, "and not much less"


@pytest.mark.parametrize(
    ("settings", "clients", "fraction"),
    [
        *((SECURE, clients, fraction) for clients in (5, 8, 13, 60, 200, 1000) for fraction in (1.0, 0.5)),
        *((NOISY, clients, 1.0) for clients in (5, 60, 1000)),
    ],
)
def test_every_sum_of_the_run_fits_however_the_fleet_grows(
    settings: dict[str, Scalar], clients: int, fraction: float
) -> None:
    settings = {**settings, "strategy.fraction-train": fraction}
    trust = proposed(settings)
    config = replace(RunConfig.from_flat(settings), clients=clients)
    safeguards = RunSafeguards(config)
    trial = TrialTerms(2, 2.0, not safeguards.noisy).spec("v1", ("coin",))
    for spec in (SPEC, trial):
        cohort = safeguards.sample(spec)
        if not safeguards.releasable(cohort):
            continue
        plan = safeguards.plan(spec, cohort)
        allowed = trust.for_trial() if spec is trial else trust
        known = max(allowed.least_cohort, choose_graph(cohort, safeguards.colluding, 0.2).threshold + 1)
        allowed.check(Asked("masked", config.codec.name, plan.minimum, plan.noise_of(known)))
        assert known >= allowed.least_cohort
        if safeguards.noisy:
            assert epsilon_of(safeguards.releases * rho_of(plan.noise_of(known)), trust.delta) <= trust.epsilon_a_year


@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_noise_is_asked_for_where_devices_add_it(mechanism: str) -> None:
    trust = proposed({**NOISY, "strategy.name": f"{mechanism}-mean", "privacy.mechanism": mechanism})
    assert trust.verbs == "experience trial"
    assert (trust.least_noise > 1, trust.epsilon_a_year > 4) == (mechanism == "local", mechanism == "local")
