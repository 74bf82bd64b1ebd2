"""What a device and the server of a secure sum refuse, check by check."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg.keys import CONFIRMED, SIGNATURE, Advert, Identity
from fedoel.protocol.secagg.shares import SEALED, SEED
from fedoel.protocol.secagg.terms import pack, to_bitmap, unpack

from .test_rounds import Fleet, advert, terms, until


def test_a_device_sends_no_vector_on_the_shares_of_too_few_neighbours() -> None:
    fleet = until(Fleet(terms(threshold=3)), "masked")
    few = pack(list(unpack(fleet.server.shares_for(0), SEALED).items())[:2])
    with pytest.raises(SecureSumError, match="2 neighbours of at least 3"):
        fleet.step("masked", 0, few, b"")


def test_a_device_takes_no_shares_of_a_stranger() -> None:
    fleet = until(Fleet(terms(cohort=7, neighbours=4)), "masked")
    sealed = unpack(fleet.server.shares_for(0), SEALED)
    with pytest.raises(SecureSumError, match="no neighbour"):
        fleet.step("masked", 0, pack({**sealed, 3: sealed[1]}.items()), b"")


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
    with pytest.raises(SecureSumError, match="was not paired"):
        fleet.step("confirm", 0, to_bitmap(range(6), fleet.terms), b"")
    fleet.step("confirm", 0, fleet.server.survivors, b"")


def test_a_device_unmasks_on_no_word_of_a_stranger() -> None:
    fleet = until(Fleet(terms(cohort=7, neighbours=4)), "unmask")
    signed = fleet.server.signatures
    strange = pack((position, signed[position]) for position in (1, 2, 3))
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


def test_the_server_takes_shares_for_exactly_the_neighbours_that_sent_keys() -> None:
    fleet = until(Fleet(terms(cohort=7, neighbours=4)), "masked")
    sealed = fleet.server.sealed.pop(0)
    for changed in ({**sealed, 3: sealed[1]}, {1: sealed[1], 2: sealed[2]}):
        with pytest.raises(SecureSumError, match="not for the neighbours"):
            fleet.server.take_shares(0, pack(changed.items()))
    fleet.server.take_shares(0, pack(sealed.items()))


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
    fleet = until(Fleet(terms(cohort=7, neighbours=4)), "unmask")
    with pytest.raises(SecureSumError, match="gave none to this one"):
        fleet.server.take_opened(0, pack([(3, bytes(SEED))]))


def test_the_server_adds_nothing_up_with_too_few_devices() -> None:
    fleet = Fleet(terms(cohort=6, neighbours=5, minimum=4))
    fleet.run()
    with pytest.raises(SecureSumError, match="6 devices of at least 7"):
        fleet.server.check(fleet.server.masked, least=7)
    fleet.server.masked = {position: fleet.server.masked[position] for position in range(3)}
    with pytest.raises(SecureSumError, match="3 devices of at least 4"):
        fleet.server.total()
