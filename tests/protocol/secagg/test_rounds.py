"""Whole rounds: the sum is exact under dropouts, a round fails closed below the minimum, replies are idempotent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.device import Round
from fedoel.protocol.secagg.keys import Advert, Identity
from fedoel.protocol.secagg.masks import Cells, cell_type
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.terms import Terms, pack, to_bitmap

PHASES = device.PHASES
Silent = Mapping[str, Collection[int]]


def garble(reply: bytes) -> bytes:
    """Change the last byte but one, which is part of a share, signature or seal, not of a position."""
    return reply[:-2] + bytes([reply[-2] ^ 1]) + reply[-1:] if len(reply) > 2 else reply


def terms(cohort: int = 5, neighbours: int = 4, threshold: int = 3, minimum: int = 3, **changed: object) -> Terms:
    values = {"run": "ab", "number": 1, "cells": 7, "bits": 16, "subject": "s"} | changed
    return Terms(cohort=cohort, neighbours=neighbours, threshold=threshold, minimum=minimum, **values)  # type: ignore[arg-type]


@dataclass
class Fleet:
    """Devices with identities and vectors, and the server's round."""

    terms: Terms
    seed: int = 0
    states: dict[int, Round] = field(default_factory=dict)
    garbled: Collection[tuple[str, int]] = ()
    twice: Collection[str] = ()

    def __post_init__(self) -> None:
        self.identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(self.terms.cohort)]
        self.members = frozenset(identity.public for identity in self.identities)
        self.server = ServerRound(self.terms, self.members)
        rng = np.random.default_rng(self.seed)
        high = 2**self.terms.bits
        self.vectors = rng.integers(0, high, (self.terms.cohort, self.terms.cells)).astype(cell_type(self.terms.bits))

    def run(self, silent: Silent | None = None) -> Cells:
        """Run all phases; a device that refuses or does not answer has dropped out."""
        for phase in PHASES:
            self.phase(phase, (silent or {}).get(phase, ()))
            self.server.check(self.reached(phase))
        return self.server.total()

    def phase(self, phase: str, silent: Collection[int] = ()) -> None:
        requests = self.requests(phase)
        for position in sorted(requests.keys() - set(silent)):
            try:
                for _ in range(1 + (phase in self.twice)):  # a repeated request changes nothing
                    state = self.step(phase, position, *requests[position])
                    self.states[position] = self.states.get(position, state) if phase == "keys" else state
                reply = self.states[position].replies[phase]
                self.take(phase, position, garble(reply) if (phase, position) in self.garbled else reply)
            except SecureSumError:
                continue

    def requests(self, phase: str) -> dict[int, tuple[bytes, bytes]]:
        server = self.server
        if phase == "keys":
            return dict.fromkeys(range(self.terms.cohort), (b"", b""))
        if phase == "shares":
            return {p: (server.adverts_for(p), b"") for p in server.adverts}
        if phase == "masked":
            return {p: (server.shares_for(p), b"") for p in server.sealed}
        if phase == "confirm":
            return dict.fromkeys(server.masked, (server.survivors, b""))
        return {p: (server.survivors, server.signatures_for(p)) for p in server.signatures}

    def step(self, phase: str, position: int, body: bytes, extra: bytes) -> Round:
        if phase == "keys":
            return device.advertise(self.identities[position], self.terms, position, colluding=0.0)
        state = self.states[position]
        if phase == "shares":
            return device.share(state, body, self.members)
        if phase == "masked":
            return device.mask(state, body, lambda: self.vectors[position])
        if phase == "confirm":
            return device.confirm(state, self.identities[position], body)
        return device.unmask(state, body, extra)

    def take(self, phase: str, position: int, reply: bytes) -> None:
        server = self.server
        {
            "keys": server.take_keys,
            "shares": server.take_shares,
            "masked": server.take_masked,
            "confirm": server.take_confirmation,
            "unmask": server.take_opened,
        }[phase](position, reply)

    def reached(self, phase: str) -> Collection[int]:
        server = self.server
        held: dict[str, Collection[int]] = {
            "keys": server.adverts,
            "shares": server.sealed,
            "masked": server.masked,
            "confirm": server.signatures,
            "unmask": server.opened,
        }
        return held[phase]

    def expected(self) -> Cells:
        """Sum over the devices whose masked vectors arrived."""
        chosen = self.vectors[sorted(self.server.masked)].astype(np.uint64).sum(axis=0)
        return np.asarray(chosen, dtype=cell_type(self.terms.bits))


@pytest.mark.parametrize("bits", [16, 32])
def test_sum_is_exact(bits: int) -> None:
    fleet = Fleet(terms(bits=bits))
    assert (fleet.run() == fleet.expected()).all()
    assert len(fleet.server.masked) == 5


@pytest.mark.parametrize("phase", PHASES)
def test_four_of_ten_may_drop_out_at_each_phase(phase: str) -> None:
    fleet = Fleet(terms(cohort=10, neighbours=9, threshold=5, minimum=6))
    assert (fleet.run({phase: range(4)}) == fleet.expected()).all()
    assert len(fleet.server.masked) == (10 if phase in ("confirm", "unmask") else 6)


def test_some_neighbours_are_enough() -> None:
    """Each device picks eight of eleven; the three that drop out may all be among them."""
    fleet = Fleet(terms(cohort=12, neighbours=8, threshold=5, minimum=8))
    assert (fleet.run({"shares": [3], "masked": [7], "unmask": [0]}) == fleet.expected()).all()


silences = st.fixed_dictionaries({phase: st.sets(st.integers(0, 7), max_size=5) for phase in PHASES})


# A masked vector changed in transit cannot be detected here: TLS protects it.
garbled = st.sets(st.tuples(st.sampled_from(["keys", "shares", "confirm", "unmask"]), st.integers(0, 7)), max_size=3)


@settings(max_examples=1000)
@given(silent=silences, ring=st.booleans(), garbled=garbled, twice=st.sets(st.sampled_from(PHASES)))
def test_no_schedule_of_faults_gives_a_wrong_sum(
    silent: dict[str, set[int]], ring: bool, garbled: set[tuple[str, int]], twice: set[str]
) -> None:
    """Dropouts, changed replies and repeated requests give the exact sum over enough devices, or a refusal."""
    chosen = terms(cohort=8, neighbours=4 if ring else 7, threshold=3 if ring else 4, minimum=4, cells=3)
    fleet = Fleet(chosen, garbled=garbled, twice=twice)
    try:
        total = fleet.run(silent)
    except SecureSumError:
        return
    assert (total == fleet.expected()).all() and len(fleet.server.masked) >= 4


def test_masked_vectors_look_like_noise() -> None:
    """A masked vector of zeros is spread over all values."""
    fleet = Fleet(terms(cells=4096))
    fleet.vectors[:] = 0
    for phase in PHASES[:3]:
        fleet.phase(phase)
    for masked in fleet.server.masked.values():
        assert abs(masked.astype(float).mean() / 2**16 - 0.5) < 0.03
        assert len(np.unique(masked)) > 3500


def test_below_the_minimum_the_round_fails_closed() -> None:
    fleet = Fleet(terms(cohort=6, neighbours=5, minimum=4))
    for phase, silent in (("keys", ()), ("shares", ()), ("masked", (0, 1, 2))):
        fleet.phase(phase, silent)
    with pytest.raises(SecureSumError, match="3 devices of at least 4"):
        fleet.server.check(fleet.server.masked)
    fleet.phase("confirm")
    assert not fleet.server.signatures, "devices must refuse to confirm so few survivors"


def until(fleet: Fleet, phase: str) -> Fleet:
    for before in PHASES[: PHASES.index(phase)]:
        fleet.phase(before)
    return fleet


def test_the_same_request_gets_the_same_reply() -> None:
    fleet = Fleet(terms())
    for phase in PHASES[1:]:
        until_now = fleet.requests if phase != "shares" else until(fleet, "shares").requests
        body, extra = until_now(phase)[0]
        fleet.phase(phase)
        again = fleet.step(phase, 0, body, extra)
        assert again.replies[phase] == fleet.states[0].replies[phase]


@pytest.mark.parametrize("phase", PHASES[2:])
def test_a_phase_is_not_answered_to_two_requests(phase: str) -> None:
    fleet = until(Fleet(terms(cohort=6, neighbours=5)), phase)
    fleet.phase(phase)
    other = {
        "masked": fleet.server.shares_for(0)[:-62],
        "confirm": to_bitmap(range(4), fleet.terms),
        "unmask": to_bitmap(range(4), fleet.terms),
    }[phase]
    with pytest.raises(SecureSumError, match="answered already"):
        fleet.step(phase, 0, other, b"")


def test_another_set_than_the_confirmed_one_is_not_unmasked() -> None:
    fleet = until(Fleet(terms(cohort=6, neighbours=5)), "unmask")
    with pytest.raises(SecureSumError, match="answered already"):
        fleet.step("unmask", 0, to_bitmap(range(4), fleet.terms), fleet.server.signatures_for(0))


def test_survivors_must_be_confirmed_by_enough_neighbours() -> None:
    fleet = until(Fleet(terms(cohort=6, neighbours=5, threshold=4)), "unmask")
    few = pack(list(fleet.server.signatures.items())[1:4])
    with pytest.raises(SecureSumError, match="3 neighbours of at least 4"):
        fleet.step("unmask", 0, fleet.server.survivors, few)
    forged = pack((p, fleet.server.signatures[1]) for p in (1, 2, 3, 4))
    with pytest.raises(SecureSumError, match="does not hold"):
        fleet.step("unmask", 0, fleet.server.survivors, forged)


def test_secrets_are_deleted_after_the_last_phase() -> None:
    fleet = Fleet(terms())
    fleet.run()
    assert all(not state.secrets for state in fleet.states.values())


def test_phases_come_in_order() -> None:
    fleet = until(Fleet(terms()), "shares")
    with pytest.raises(SecureSumError, match="comes after 'shares'"):
        fleet.step("masked", 0, b"", b"")


def advert(fleet: Fleet, position: int) -> Advert:
    return Advert.from_bytes(fleet.states[position].replies["keys"])


def refused(fleet: Fleet, adverts: list[Advert], match: str) -> None:
    with pytest.raises(SecureSumError, match=match):
        device.share(fleet.states[0], b"".join(advert.to_bytes() for advert in adverts), fleet.members)


def test_a_device_refuses_invalid_adverts() -> None:
    fleet = until(Fleet(terms(cohort=5)), "shares")
    good = [advert(fleet, p) for p in range(1, 5)]
    refused(fleet, [*good[:3], replace(good[3], mask_key=bytes(31) + b"\1")], "does not hold")
    refused(fleet, [*good[:3], replace(good[3], signature=bytes(64))], "does not hold")
    stranger = Identity(Ed25519PrivateKey.generate())
    unknown = Advert.signed(stranger, fleet.terms, 1, good[0].mask_key, good[0].seal_key, good[0].commitment)
    refused(fleet, [unknown, *good[1:]], "no member")
    refused(fleet, [*good[:3], good[2]], "several keys")
    twice = Advert.signed(fleet.identities[1], fleet.terms, 2, good[1].mask_key, good[1].seal_key, good[1].commitment)
    refused(fleet, [good[0], twice, *good[2:]], "several keys")
    refused(fleet, [advert(fleet, 0), *good[1:]], "several keys")
    other = Advert.signed(fleet.identities[1], fleet.terms, 0, good[0].mask_key, good[0].seal_key, good[0].commitment)
    refused(fleet, [other, *good[1:]], "own position")
    beyond = Advert.signed(fleet.identities[1], fleet.terms, 7, good[0].mask_key, good[0].seal_key, good[0].commitment)
    refused(fleet, [beyond, *good[1:]], "no position 7")
    refused(fleet, good[:2], "2 neighbours of at least 3")
    elsewhere = replace(fleet.terms, number=2)
    late = Advert.signed(fleet.identities[1], elsewhere, 1, good[0].mask_key, good[0].seal_key, good[0].commitment)
    refused(fleet, [late, *good[1:]], "does not hold")


def test_devices_pick_their_neighbours_themselves_and_at_random() -> None:
    """Where all are asked by the same server, nobody is picked more often than chance has it."""
    picked = np.zeros((9, 9), int)
    for _ in range(40):
        fleet = until(Fleet(terms(cohort=9, neighbours=4, threshold=3, minimum=6)), "masked")
        for position, sealed in fleet.server.sealed.items():
            assert len(sealed) == 4 and position not in sealed
            picked[position, list(sealed)] += 1
    often = picked[~np.eye(9, dtype=bool)]
    assert often.sum() == 40 * 9 * 4 and often.min() > 4 and often.max() < 36, "each is picked with a chance of a half"


def test_a_device_knows_the_keys_of_every_survivor() -> None:
    """A server claims a cohort of nine, of whom six survive, and has four devices: none of them sends anything."""
    fleet = Fleet(terms(cohort=9, neighbours=4, threshold=3, minimum=6))
    for phase in ("keys", "shares"):
        fleet.phase(phase, range(4, 9))
    with pytest.raises(SecureSumError, match="4 known devices take part, this one included, and it wants 6"):
        fleet.step("masked", 0, fleet.server.shares_for(0), b"")
    made_up = to_bitmap(range(1, 7), fleet.terms) + fleet.server.shares_for(0)[2:]
    with pytest.raises(SecureSumError, match="keys were not shown"):
        fleet.step("masked", 0, made_up, b"")


def test_a_device_refuses_weak_terms() -> None:
    identity = Identity(Ed25519PrivateKey.generate())
    for threshold, minimum, match in ((5, 7, "threshold of 5 of 8 neighbours is too low"), (6, 3, "over 3 devices")):
        weak = terms(cohort=9, neighbours=8, threshold=threshold, minimum=minimum)
        with pytest.raises(SecureSumError, match=match):
            device.advertise(identity, weak, 0)
    with pytest.raises(SecureSumError, match="3 survivors, and this device wants 4"):
        device.advertise(identity, terms(), 0, least=4)


@pytest.mark.parametrize("dropped", [False, True])
def test_wrong_shares_are_corrected_and_too_many_of_them_refused(dropped: bool) -> None:
    """Of four shares, three of which determine a secret, one may be wrong; of the last mask, or the dropped pairs'."""
    fleet = Fleet(terms())
    for phase in PHASES:
        fleet.phase(phase, [0] if dropped and phase == "masked" else [])
    for holder in (1, 2):
        fleet.server.opened[holder] = {**fleet.server.opened[holder], 0: bytes(16)}
        if holder == 1:
            assert (fleet.server.total() == fleet.expected()).all()
            assert fleet.server.disputes.pairs == {(0, 1)}
    with pytest.raises(SecureSumError, match="1 masks cannot be removed: too many of their shares are wrong"):
        fleet.server.total()
    assert fleet.server.disputes.unrecovered == {0}


@pytest.mark.parametrize("phase", PHASES)
@given(junk=st.binary(max_size=200))
@settings(max_examples=30)
def test_the_server_refuses_junk(phase: str, junk: bytes) -> None:
    fleet = until(Fleet(terms()), phase)
    before = set(fleet.reached(phase))
    try:
        fleet.take(phase, 0, junk)
    except SecureSumError:
        assert set(fleet.reached(phase)) == before
    else:
        assert phase in ("masked", "unmask"), "junk was accepted as a signed reply"
