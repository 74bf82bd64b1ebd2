"""Wrong shares: what can be corrected, and who is named for what cannot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg.decoding import CHOICES, Recovered, recover_despite_errors, wrong_shares
from fedoel.protocol.secagg.disputes import Disputes
from fedoel.protocol.secagg.graph import choose_graph
from fedoel.protocol.secagg.keys import Advert
from fedoel.protocol.secagg.shares import PRIME, SEALED, new_seed, split
from fedoel.protocol.secagg.terms import Terms, pack, unpack

from .test_rounds import Fleet, terms, until


@pytest.mark.parametrize(
    ("count", "threshold", "corrected"), [(3, 3, 0), (7, 4, 3), (9, 7, 2), (74, 54, 10), (12, 2, 10)]
)
def test_as_many_wrong_shares_are_corrected_as_the_others_allow(count: int, threshold: int, corrected: int) -> None:
    seed, rng = new_seed(), random.Random(count)
    dealt = dict(enumerate(split(seed, count, threshold)))
    for lying in {0, corrected // 2, corrected}:
        liars = rng.sample(range(count), lying)
        sent = dealt | {index: new_seed() for index in liars}
        recovered = recover_despite_errors(sent, threshold, lambda found: found == seed)
        assert recovered is not None and recovered.seed == seed and recovered.wrong == set(liars)
        right = sorted(dealt.keys() - set(liars))[:threshold]
        assert wrong_shares(sent, right) == set(liars)
    too_many = dealt | {index: new_seed() for index in range(corrected + 1)}
    assert recover_despite_errors(too_many, threshold, lambda found: found == seed) is None


def value(share: bytes) -> int:
    return int.from_bytes(share, "big") % PRIME


@settings(max_examples=50)
@given(data=st.data())
def test_no_error_gives_a_seed_that_was_not_committed_to(data: st.DataObject) -> None:
    """On either side of the number of choices up to which all are tried."""
    count, threshold = data.draw(st.sampled_from([(6, 3), (13, 6), (14, 6), (30, 20)]))
    seed = data.draw(st.integers(0, 2**127)).to_bytes(16, "big")
    dealt = dict(enumerate(split(seed, count, threshold)))
    changed = data.draw(st.dictionaries(st.integers(0, count - 1), st.binary(min_size=16, max_size=16)))
    recovered = recover_despite_errors(dealt | changed, threshold, lambda found: found == seed)
    wrong = {i for i, share in changed.items() if value(share) != value(dealt[i])}
    assert recovered is None or (recovered.seed == seed and recovered.wrong == wrong)
    assert recovered is not None or len(wrong) > (count - threshold) // 2


def test_consistent_shares_of_another_secret_are_refused() -> None:
    dealt = dict(enumerate(split(new_seed(), 20, 12)))
    assert recover_despite_errors(dealt, 12, lambda found: found == bytes(16)) is None
    assert recover_despite_errors(dict(list(dealt.items())[:11]), 12, lambda found: True) is None


def test_a_search_is_bounded() -> None:
    tried: list[bytes] = []

    def never(seed: bytes) -> bool:
        tried.append(seed)
        return False

    for count, threshold in ((13, 7), (16, 4), (74, 54)):
        assert recover_despite_errors(dict(enumerate(split(new_seed(), count, threshold))), threshold, never) is None
    assert len(tried) <= 3 * CHOICES


def disputes(*pairs: tuple[int, int], cohort: int = 10) -> Disputes:
    graph = choose_graph(cohort, 1 / 3, 0.2)
    return Disputes(terms(cohort, graph.neighbours, graph.threshold, 8), set(pairs))


def test_who_is_in_dispute_with_more_than_may_lie_is_the_liar() -> None:
    """Of ten devices with nine neighbours and a threshold of seven, four neighbours of a device may lie."""
    dealer = disputes(*((0, holder) for holder in range(1, 6)))
    assert dealer.most_liars == (4, 4) and dealer.liars() == {0} and not dealer.doubtful()
    holder = disputes(*((dealer, 0) for dealer in range(1, 6)))
    assert holder.liars() == {0}
    both_ways = disputes((0, 1), (1, 0), (0, 2), (2, 0), (0, 3))
    assert not both_ways.liars(), "two devices that dispute each other's shares are one pair"


def test_liars_that_deal_to_one_device_do_not_get_it_named() -> None:
    """Of 200 devices, each of which picks 130, a third lies: all of them pick the same device and deal it garbage."""
    framed = Disputes(Terms("ab", 1, 200, 130, 95, 160, 1, 16, "s"), {(dealer, 199) for dealer in range(66)})
    of_holders, of_cohort = framed.most_liars
    assert of_holders == 59 < 66 <= of_cohort and not framed.liars()
    framed.add((dealer, 199) for dealer in range(66, 120))
    assert framed.liars() == {199}


def test_of_other_disputes_both_sides_are_doubtful_once() -> None:
    few = disputes((0, 1), (0, 2), (0, 3), (5, 6))
    assert not few.liars() and few.doubtful() == {0, 1, 5, 6}


def test_honest_devices_are_not_named_for_disputes_with_liars() -> None:
    """Three liars of ten dispute all shares; more liars than the graph is made for do not get the others named."""
    for liars in (range(3), range(6)):
        all_shares = disputes(*((d, h) for d in range(10) for h in liars if d != h))
        assert all_shares.liars() <= set(liars)
    lost = disputes()
    lost.unrecovered = {7}
    assert lost.liars() == {7}
    lost.unrecovered = set(range(6))
    assert not lost.liars(), "when so many masks are lost, holders have changed shares"


def test_a_share_that_cannot_be_opened_is_named_behind_the_masked_vector() -> None:
    fleet = until(Fleet(terms()), "masked")
    fleet.server.sealed[3] = {other: bytes(SEALED) for other in fleet.server.sealed[3]}
    plain = fleet.server.terms.cells * 2
    replies = {p: fleet.step("masked", p, fleet.server.shares_for(p), b"").replies["masked"] for p in range(5)}
    assert [len(replies[p]) - plain for p in range(5)] == [2, 2, 2, 0, 2]
    assert all(unpack(replies[p][plain:], 0) == {3: b""} for p in (0, 1, 2, 4))
    for position, reply in replies.items():
        fleet.server.take_masked(position, reply)
    with pytest.raises(SecureSumError, match="0 devices of at least 3 hold shares of a mask"):
        fleet.server.check_openable(fleet.server.masked)
    assert fleet.server.disputes.liars() == {3}
    with pytest.raises(SecureSumError, match="positions of senders only"):
        fleet.server.take_masked(0, replies[0][:plain] + pack([(0, b"")]))


def test_a_round_goes_on_while_enough_neighbours_hold_shares() -> None:
    fleet = until(Fleet(terms()), "masked")
    sealed = fleet.server.sealed[3]
    fleet.server.sealed[3] = {**sealed, 1: bytes(SEALED)}
    for phase in ("masked", "confirm", "unmask"):
        fleet.phase(phase)
    fleet.server.check_openable(fleet.server.masked)
    assert (fleet.server.total() == fleet.expected()).all()
    assert fleet.server.disputes.pairs == {(3, 1)} and fleet.server.disputes.doubtful() == {1, 3}


@pytest.mark.parametrize("key", ["mask_key", "seal_key"])
def test_the_server_takes_no_keys_of_low_order(key: str) -> None:
    fleet = Fleet(terms())
    state = fleet.step("keys", 0, b"", b"")
    advert = Advert.from_bytes(state.replies["keys"])
    keys = {"mask_key": advert.mask_key, "seal_key": advert.seal_key} | {key: bytes(32)}
    signed = Advert.signed(fleet.identities[0], fleet.terms, 0, **keys, commitment=advert.commitment)
    with pytest.raises(SecureSumError, match="cannot be used"):
        fleet.server.take_keys(0, signed.to_bytes())
    assert not fleet.server.adverts


def test_shares_of_liars_are_used_last() -> None:
    """One search for wrong shares finds a liar, and the other masks are recovered without it."""
    graph = choose_graph(30, 1 / 3, 0.1)
    fleet = Fleet(terms(30, graph.neighbours, graph.threshold, 27))
    for phase in ("keys", "shares", "masked", "confirm", "unmask"):
        fleet.phase(phase)
    fleet.server.opened[0] = {other: new_seed() for other in fleet.server.opened[0]}
    searches: list[int] = []

    def counted(shares: Mapping[int, bytes], threshold: int, is_right: Callable[[bytes], bool]) -> Recovered | None:
        searches.append(threshold)
        return recover_despite_errors(shares, threshold, is_right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedoel.protocol.secagg.server.recover_despite_errors", counted)
        assert (fleet.server.total() == fleet.expected()).all()
    assert 0 < len(searches) <= 2 and fleet.server.disputes.liars() == {0}
