"""Devices that lie about keys, shares and other devices, in the strategy's own rounds over Flower messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from fedoel.client.secure import STATE, protected
from fedoel.protocol.experience import ExperienceVector
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.secagg.device import Round
from fedoel.protocol.secagg.keys import Advert, AgreementKey, adverts_from_bytes
from fedoel.protocol.secagg.messages import reply_from_records, reply_records, round_from_record, round_to_record
from fedoel.protocol.secagg.shares import SEALED, SEED, new_seed, seal
from fedoel.protocol.secagg.terms import pack, unpack
from fedoel.simulations.grid import server_identity
from fedoel.strategies.secure_groups import GroupedSecure
from fedoel.strategies.secure_mean import DOUBTFUL, FAILED, LIAR, UNCLIPPED, SecureMean

from .conftest import Ledger
from .test_secure_mean import CLIENTS, SPEC, Fleet, close, silent, vector

LIAR_CLIENT = 2
HONEST = [client for client in range(CLIENTS) if client != LIAR_CLIENT]
Lie = Callable[["Liars", int, Round, bytes], bytes]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


class Liars(Fleet):
    """A fleet in which some devices change their reply of one phase, or their secrets before it."""

    def __init__(
        self, phase: str, lie: Lie, liars: tuple[int, ...] = (LIAR_CLIENT,), secrets: bool = False, **settings: Any
    ) -> None:
        self.phase, self.lie, self.liars, self.secrets = phase, lie, liars, secrets
        self.asked: list[tuple[str, int]] = []
        super().__init__(**settings)

    def verb(self, phase: str) -> Callable[[Message, Context], Message]:
        answer = super().verb(phase)

        def lying(message: Message, context: Context) -> Message:
            client = int(context.node_config["partition-id"])
            self.asked.append((phase, client))
            lies = phase == self.phase and client in self.liars
            if lies and self.secrets:
                state = round_from_record(context.state[STATE])  # type: ignore[arg-type]
                changed = replace(state, secrets={**state.secrets, "own_seed": new_seed()})
                context.state[STATE] = round_to_record(changed)
            reply = answer(message, context)
            if lies and not self.secrets:
                state = round_from_record(context.state[STATE])  # type: ignore[arg-type]
                changed_reply = self.lie(self, client, state, reply_from_records(reply.content))
                return Message(reply_records(changed_reply), reply_to=message)
            return reply

        return lying


def garbage_seals(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    return pack((other, os.urandom(SEALED)) for other in unpack(reply, SEALED))


def one_garbage_seal(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    sealed = unpack(reply, SEALED)
    return pack({**sealed, min(sealed): os.urandom(SEALED)}.items())


def shares_of_no_secret(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    adverts = {advert.position: advert for advert in adverts_from_bytes(state.secrets["adverts"])}
    key = AgreementKey(state.secrets["seal_key"])

    def sealed(other: int) -> bytes:
        shared = key.agree(adverts[other].seal_key, "seal", state.terms)
        return seal(shared, (new_seed(), new_seed()), (state.position, other), state.terms)

    return pack((other, sealed(other)) for other in unpack(reply, SEALED))


def wrong_shares(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    return pack((other, os.urandom(SEED)) for other in unpack(reply, SEED))


def keys_of_low_order(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    advert, signer = Advert.from_bytes(reply), fleet.members[client].identity
    return Advert.signed(signer, state.terms, advert.position, advert.mask_key, bytes(32), advert.commitment).to_bytes()


def complaints_about_all(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    return reply + pack((other, b"") for other in range(CLIENTS) if other != state.position)


def no_lie(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
    raise AssertionError("secrets are changed instead")


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("records", [False, True])
def test_garbage_for_shares_costs_the_liar_its_place_and_no_budget(records: bool, noise: float, tmp_path: Path) -> None:
    """The round cannot be opened; it is made again without the liar, by devices that write down what they give."""
    fleet = Liars("shares", garbage_seals, records=tmp_path if records else None, noise=noise, share=1.0)
    server = fleet.run(cycles=2)
    opened = [client for phase, client in fleet.asked if phase == "unmask"]
    assert None not in server.aggregates and sorted(opened) == sorted(2 * HONEST)
    assert noise or all(close(aggregate, HONEST) for aggregate in server.aggregates)
    assert server.traffic[0].refused == {LIAR: 1}
    assert server.traffic[1].refused == {}, "who has lied for certain is asked no more in this run"
    assert server.safeguards.steps.count("spend") == 2 and server.safeguards.rounds == 3
    assert [client for phase, client in fleet.asked if phase == "keys"].count(LIAR_CLIENT) == 1


def test_nothing_of_a_round_that_cannot_be_opened_is_ever_confirmed() -> None:
    """Why such a round costs nothing: no honest device has signed its survivors, without which none sends a share."""
    fleet = Liars("shares", garbage_seals, noise=1.0, share=1.0)
    fleet.run()
    assert [phase for phase, client in fleet.asked if client == LIAR_CLIENT] == ["keys", "shares", "masked"]
    for client in HONEST:
        phases = [phase for phase, asked in fleet.asked if asked == client]
        assert phases == ["keys", "shares", "masked", "keys", "shares", "masked", "confirm", "unmask"]


def test_one_share_that_cannot_be_opened_costs_nothing() -> None:
    """The other shares are enough; which of the two lies, nobody can tell."""
    server = Liars("shares", one_garbage_seal).run()
    assert close(server.aggregates[0], range(CLIENTS))
    assert server.traffic[0].refused == {DOUBTFUL: 2} and server.safeguards.rounds == 1


def test_a_device_that_says_it_cannot_open_anything_is_the_liar() -> None:
    server = Liars("masked", complaints_about_all).run(cycles=2)
    assert close(server.aggregates[0], range(CLIENTS)) and close(server.aggregates[1], HONEST)
    assert server.traffic[0].refused == {LIAR: 1}


@pytest.mark.parametrize(("liars", "dropped"), [((2,), ()), ((2,), (0,)), ((2, 5), ())])
def test_wrong_shares_of_masks_are_corrected_and_blamed(liars: tuple[int, ...], dropped: tuple[int, ...]) -> None:
    """A liar whose shares are not needed is not noticed, and does no harm; who is, is asked no more."""
    fleet = Liars("unmask", wrong_shares, liars, fault=silent("masked", dropped), colluding=0.25, max_dropout=0.2)
    server = fleet.run(cycles=4 - len(dropped))
    last: set[int] = set()
    for aggregate, traffic in zip(server.aggregates, server.traffic, strict=True):
        assert aggregate is not None and FAILED not in traffic.refused
        there = [client for client in range(CLIENTS) if client not in {*dropped, *last}]
        assert close(aggregate, there)
        last |= set(liars) if LIAR in traffic.refused else set()
    assert sum(traffic.refused.get(LIAR, 0) for traffic in server.traffic) == len(liars)
    assert server.safeguards.steps.count("spend") == len(server.aggregates)


def test_liars_that_are_too_many_to_be_corrected_lose_a_release() -> None:
    server = Liars("unmask", wrong_shares, liars=(1, 4, 5, 6), noise=1.0, share=1.0).run()
    assert server.aggregates == [None] and server.traffic[0].refused[FAILED] == 1
    assert server.safeguards.steps.count("spend") == 1, "what may have been seen is spent"


def test_a_wrong_secret_burns_one_release_of_a_run_and_not_every_one() -> None:
    """Its own mask is another one than was shared. That comes out when the others have helped, so it is spent."""
    fleet = Liars("shares", no_lie, secrets=True, noise=1.0, share=1.0)
    server = fleet.run(cycles=4)
    assert [aggregate is None for aggregate in server.aggregates] == [True, False, False, False]
    assert server.traffic[0].refused == {FAILED: 1, LIAR: 1} and server.traffic[1].refused == {}
    assert server.safeguards.steps.count("spend") == 4


def test_shares_that_are_of_no_secret_are_their_dealers_fault() -> None:
    server = Liars("shares", shares_of_no_secret, noise=1.0, share=1.0).run(cycles=2)
    assert server.aggregates[0] is None and server.traffic[0].refused == {FAILED: 1, LIAR: 1}
    assert server.aggregates[1] is not None and server.traffic[1].refused == {}


def test_keys_with_which_nobody_can_agree_are_refused_before_others_meet_them() -> None:
    server = Liars("keys", keys_of_low_order).run()
    assert close(server.aggregates[0], HONEST)
    assert server.traffic[0].refused == {"keys: bad reply": 1}


def test_a_liar_in_one_group_costs_that_group_once() -> None:
    fleet = Liars("shares", garbage_seals, max_dropout=0.2)
    server: Ledger = fleet.server
    GroupedSecure(server, min_available_nodes=CLIENTS).start(fleet.grid, num_rounds=2)
    first, second = server.aggregates
    assert first is not None and second is not None
    assert (first.cohort, second.cohort) == (CLIENTS // 2, CLIENTS - 1)
    assert server.traffic[0].refused == {FAILED: 1, LIAR: 1}
    assert np.isfinite(second.vector.gradient).all() and SPEC.dimension == len(second.vector.gradient)


def test_rounds_that_fail_again_and_again_are_not_made_again_for_ever() -> None:
    """Each attempt has a new liar: at most three rounds follow at once, and then the server's patience counts."""
    rounds: list[int] = []

    def next_liar(fleet: Liars, client: int, state: Round, reply: bytes) -> bytes:
        if state.terms.number not in rounds:
            rounds.append(state.terms.number)
            return garbage_seals(fleet, client, state, reply)
        return reply

    fleet = Liars("shares", next_liar, liars=tuple(range(CLIENTS)), minimum=2, max_dropout=0.2)
    SecureMean(fleet.server).start(fleet.grid, num_rounds=1)
    assert fleet.server.aggregates == [None] and len(rounds) == 4


def test_a_sum_that_clipped_vectors_cannot_give_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lie would stop the run: the cycles of a version add to what was collected about it before."""
    liar = vector(0).gradient

    def loud(given: ExperienceVector, plan: PrivacyPlan) -> Any:
        cells, most = protected(given, plan), 2 ** (plan.bits - 1)
        return cells + cells.dtype.type(most - most // 8) if np.array_equal(given.gradient, liar) else cells

    monkeypatch.setattr("fedoel.client.secure.protected", loud)
    server = Fleet().run()
    assert server.aggregates == [None]
    assert (server.traffic[0].accepted, server.traffic[0].refused) == (0, {UNCLIPPED: 1})
