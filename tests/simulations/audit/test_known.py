"""A sum that a device has not confirmed itself: others open it, who may know nobody and believe the fleet's list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.client.app import make_app
from fedoel.client.secure import Guard
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.privacy.concentrated import epsilon_of, rho_of
from fedoel.protocol.secagg.keys import Identity
from fedoel.protocol.secagg.messages import round_from_record
from fedoel.simulations.audit.hostile import HostileServer, everybody
from fedoel.simulations.audit.target import VICTIM, Target
from fedoel.simulations.grid import server_identity
from fedoel.simulations.scenario import load_scenario

FRIENDS, STRANGERS = 5, 3


def test_a_device_that_knows_others_counts_the_noise_of_those_that_others_need_to_open_its_mask(
    tmp_path: Path,
) -> None:
    """Its friends, who know nobody, take the members that the server has made into a sum that it would refuse."""
    config = load_scenario("private", {"clients": 60, "strategy.fraction-train": 0.15})
    target = Target(config, tmp_path, Trust(verbs="masked"))
    own = [Identity(Ed25519PrivateKey.generate()) for _ in range(STRANGERS)]
    with server_identity():
        server = target.server("known", 1 + FRIENDS)
        server.signed_list = server.sign_list(own)
        known = " ".join(identity.public.hex() for identity in server.identities[1:])
        trust = replace(target.trust, known=known, least_cohort=6)
        server.runtimes[VICTIM] = replace(server.runtimes[VICTIM], owners_trust=trust)
        server._apps[VICTIM] = make_app(server.runtimes[VICTIM])
        a_round = target.round(server, target.request(server), range(1 + FRIENDS))
        places = range(1 + FRIENDS, 1 + FRIENDS + STRANGERS)
        a_round = replace(a_round, accomplices=dict(zip(places, own, strict=True)), devices=everybody(range(6)))
        a_round.up_to_masked()
        expected = noise_counted(server, trust)
        a_round.open({*range(5), *places})  # without the last friend
    assert server.refused == {"TooManyStrangers": 1, "SecureSumError": 1}, "the device, and the friend left out"
    [opened] = a_round.transcript.opened_sums()
    assert opened.positions == set(range(5)), "and it is opened all the same"
    assert expected == 4 <= len(opened.positions) < target.plan.minimum, "the members count seven at least"
    noise = a_round.plan.noise_of(expected)
    spent = epsilon_of(rho_of(noise), 1e-6) + a_round.plan.loss_of_sum(9)
    assert abs(server.runtimes[VICTIM].contributions.epsilon(1e-6) - spent) < 1e-9  # type: ignore[attr-defined]


def noise_counted(server: HostileServer, trust: Trust) -> int:
    state = server._contexts[VICTIM, 1].state["secure-sum"]
    return Guard(trust).noisy(round_from_record(state))  # type: ignore[arg-type]
