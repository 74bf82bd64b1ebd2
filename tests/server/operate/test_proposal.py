"""What a fleet proposes to its devices is as strict as its run allows, and no stricter."""

from __future__ import annotations

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


def test_the_smallest_cohort_is_that_of_the_fewest_nodes() -> None:
    assert proposed({**SECURE, "server.public": "games"}).least_cohort == 4
    assert proposed({**SECURE, "trial.share": 1.0}).least_cohort == 4
    assert proposed(SECURE).least_cohort == 3, "of a part of a trial, once the fleet has grown"
    assert proposed({**SECURE, "strategy.min-available-nodes": 2}).least_cohort == 2


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
        known = max(trust.least_cohort, choose_graph(cohort, safeguards.colluding, 0.2).threshold + 1)
        trust.check(Asked("masked", config.codec.name, plan.minimum, plan.noise_of(known)))
        assert known >= trust.least_cohort
        if safeguards.noisy:
            assert epsilon_of(safeguards.releases * rho_of(plan.noise_of(known)), trust.delta) <= trust.epsilon_a_year


@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_noise_is_asked_for_where_devices_add_it(mechanism: str) -> None:
    trust = proposed({**NOISY, "strategy.name": f"{mechanism}-mean", "privacy.mechanism": mechanism})
    assert trust.verbs == "experience trial"
    assert (trust.least_noise > 1, trust.epsilon_a_year > 4) == (mechanism == "local", mechanism == "local")
