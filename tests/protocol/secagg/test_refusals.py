"""What a device and the server of a secure sum refuse, check by check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg.keys import CONFIRMED, SIGNATURE, Advert, Identity
from fedoel.protocol.secagg.shares import SEALED, SEED
from fedoel.protocol.secagg.terms import pack, to_bitmap, unpack

from .test_rounds import Fleet, advert, terms, until


def incoming(fleet: Fleet, shared: Iterable[int], sealed: Mapping[int, bytes]) -> bytes:
    return to_bitmap(shared, fleet.terms) + pack(sealed.items())


def test_a_device_sends_no_vector_on_the_shares_of_too_few_neighbours() -> None:
    fleet = until(Fleet(terms(threshold=3)), "masked")
    sealed = unpack(fleet.server.shares_for(0)[1:], SEALED)
    few = {position: sealed[position] for position in (1, 2)}
    with pytest.raises(SecureSumError, match="2 neighbours of at least 3"):
        fleet.step("masked", 0, incoming(fleet, (0, 1, 2), few), b"")


def test_a_device_takes_no_shares_of_a_stranger() -> None:
    """Of a device that has not shared, or whose keys it has not seen."""
    fleet = Fleet(terms(cohort=7, neighbours=6, threshold=4))
    fleet.phase("keys", [6])
    fleet.phase("shares", [5])
    sealed = unpack(fleet.server.shares_for(0)[1:], SEALED)
    for shared, strange in ((range(5), 5), (range(6), 6), (range(7), 6)):
        with pytest.raises(SecureSumError, match="keys were not shown"):
            fleet.step("masked", 0, incoming(fleet, shared, {**sealed, strange: sealed[1]}), b"")
    fleet.step("masked", 0, incoming(fleet, range(5), sealed), b"")


def test_a_device_confirms_no_sum_without_itself() -> None:
    fleet = until(Fleet(terms()), "confirm")
    with pytest.raises(SecureSumError, match="this device is not among them"):
        fleet.step("confirm", 0, to_bitmap(range(1, 5), fleet.terms), b"")


def test_a_device_confirms_no_neighbour_that_it_was_never_paired_with() -> None:
    """Its pair mask with that neighbour would not be in the sum, and unmasking it would show the device's vector."""
    fleet = Fleet(terms(cohort=6, neighbours=5))
    fleet.phase("keys")
    fleet.phase("shares", [5])
    fleet.phase("masked")
    with pytest.raises(SecureSumError, match="has not shared its secrets"):
        fleet.step("confirm", 0, to_bitmap(range(6), fleet.terms), b"")
    fleet.step("confirm", 0, fleet.server.survivors, b"")


def test_a_device_unmasks_on_no_word_of_a_stranger() -> None:
    """Those that confirm are its own neighbours: whom others have picked does not count."""
    fleet = until(Fleet(terms(cohort=7, neighbours=4, minimum=5)), "unmask")
    signed = fleet.server.signatures
    others = sorted(signed.keys() - fleet.server.sealed[0].keys() - {0})
    picked = sorted(fleet.server.sealed[0])
    strange = pack((position, signed[position]) for position in (others[0], *picked[:3]))
    with pytest.raises(SecureSumError, match="confirmed by a device that is no neighbour"):
        fleet.step("unmask", 0, fleet.server.survivors, strange)


def test_the_server_takes_keys_only_of_members_for_their_own_position_and_once() -> None:
    fleet = Fleet(terms())
    fleet.states = {position: fleet.step("keys", position, b"", b"") for position in (0, 1, 2)}
    first, second, third = (advert(fleet, position) for position in (0, 1, 2))
    stranger = Identity(Ed25519PrivateKey.generate())
    unknown = Advert.signed(stranger, fleet.terms, 1, second.mask_key, second.seal_key, second.commitment)
    twice = Advert.signed(fleet.identities[0], fleet.terms, 1, second.mask_key, second.seal_key, second.commitment)
    fleet.server.take_keys(0, first.to_bytes())
    for sent, match in (
        (third, "another position"), (twice, "an identity that has sent some"), (unknown, "no member"),
        (replace(second, commitment=bytes(32)), "does not hold"),
    ):  # fmt: skip
        with pytest.raises(SecureSumError, match=match):
            fleet.server.take_keys(1, sent.to_bytes())
    fleet.server.take_keys(1, second.to_bytes())
    assert fleet.server.adverts == {0: first, 1: second}


def test_the_server_takes_shares_for_as_many_devices_as_have_to_be_picked() -> None:
    fleet = until(Fleet(terms(cohort=7, neighbours=4, minimum=5)), "masked")
    sealed = fleet.server.sealed.pop(0)
    [first, *rest] = sealed
    more = next(position for position in range(1, 7) if position not in sealed)
    for changed in ({**sealed, more: sealed[first]}, {p: sealed[p] for p in rest}, {0: sealed[first], **sealed}):
        with pytest.raises(SecureSumError, match="not for as many devices"):
            fleet.server.take_shares(0, pack(changed.items()))
    fleet.server.take_shares(0, pack({more: sealed[first], **{p: sealed[p] for p in rest}}.items()))


@pytest.mark.parametrize("cells", [6, 8])
def test_the_server_takes_no_vector_of_another_size(cells: int) -> None:
    fleet = until(Fleet(terms(cells=7)), "masked")
    with pytest.raises(SecureSumError, match="takes 7 cells"):
        fleet.server.take_masked(0, bytes(2 * cells))


def test_the_server_takes_no_confirmation_of_another_set_or_size() -> None:
    fleet = until(Fleet(terms()), "confirm")
    other = fleet.identities[0].sign(CONFIRMED, fleet.terms, to_bitmap(range(4), fleet.terms))
    with pytest.raises(SecureSumError, match="does not hold"):
        fleet.server.take_confirmation(0, other)
    with pytest.raises(SecureSumError, match="another size"):
        fleet.server.take_confirmation(0, bytes(SIGNATURE + 1))


def test_the_server_takes_no_shares_of_a_device_that_gave_none() -> None:
    fleet = until(Fleet(terms(cohort=7, neighbours=4, minimum=5)), "unmask")
    holder = next(p for p in range(1, 7) if p not in fleet.server.sealed[0])
    with pytest.raises(SecureSumError, match="gave none to this one"):
        fleet.server.take_opened(holder, pack([(0, bytes(SEED))]))


def test_the_server_adds_nothing_up_with_too_few_devices() -> None:
    fleet = Fleet(terms(cohort=6, neighbours=5, minimum=4))
    fleet.run()
    with pytest.raises(SecureSumError, match="6 devices of at least 7"):
        fleet.server.check(fleet.server.masked, least=7)
    fleet.server.masked = {position: fleet.server.masked[position] for position in range(3)}
    with pytest.raises(SecureSumError, match="3 devices of at least 4"):
        fleet.server.total()
