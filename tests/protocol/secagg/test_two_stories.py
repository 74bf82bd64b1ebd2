"""A server that tells two stories: half of a device's neighbours hear that it survived, the others that it dropped out.

Every honest device runs its own code with all of its checks. Those that collude sign both stories and give both shares.
"""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.graph import Graph, check_graph, choose_graph, count_picks, least_minimum, least_threshold
from fedoel.protocol.secagg.keys import CONFIRMED, Identity
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.shares import SEALED, SEED, recover
from fedoel.protocol.secagg.terms import Terms, pack, to_bitmap, unpack

VICTIM = 0


def shares_of_two_stories(terms: Terms, colluding: int) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Run a round that tells two stories; return the shares of the victim's own mask and of its pair masks."""
    positions = range(terms.cohort)
    identities = [Identity(Ed25519PrivateKey.generate()) for _ in positions]
    members = {identity.public for identity in identities}
    server, states = ServerRound(terms, members), {}
    for p in positions:
        states[p] = device.advertise(identities[p], terms, p, colluding=colluding / terms.cohort)
        server.take_keys(p, states[p].replies["keys"])
    for p in positions:
        states[p] = device.share(states[p], server.adverts_for(p), members)
        server.take_shares(p, states[p].replies["shares"])
    for p in positions:
        states[p] = device.mask(states[p], server.shares_for(p), lambda: np.zeros(terms.cells, "<u4"))
    around = sorted(server.sealed[VICTIM])
    bad = set(around[:colluding])
    stories = (to_bitmap(positions, terms), to_bitmap(set(positions) - {VICTIM}, terms))
    honest = [p for p in positions if p not in bad]
    # Of the victim's honest neighbours, every other one hears that it survived; it hears so itself.
    heard = {p: stories[index % 2] for index, p in enumerate(honest)}
    states |= {p: device.confirm(states[p], identities[p], heard[p]) for p in honest}
    signed = {story: {p: states[p].replies["confirm"] for p in honest if heard[p] == story} for story in stories}
    for story in stories:
        signed[story] |= {p: identities[p].sign(CONFIRMED, terms, story) for p in bad}
    opened: dict[bytes, dict[int, bytes]] = {story: {} for story in stories}
    for index, p in enumerate(around):
        if p in bad:
            held = unpack(states[p].secrets["held"], 2 * SEED)[VICTIM]
            opened[stories[0]][index], opened[stories[1]][index] = held[SEED:], held[:SEED]
            continue
        signers = [q for q in sorted(server.sealed[p]) if q in signed[heard[p]]][: terms.threshold]
        try:
            state = device.unmask(states[p], heard[p], pack((q, signed[heard[p]][q]) for q in signers))
        except SecureSumError:
            continue
        opened[heard[p]][index] = unpack(state.replies["unmask"], SEED)[VICTIM]
    return opened[stories[0]], opened[stories[1]]


def terms_of(cohort: int, graph: Graph, minimum: int) -> Terms:
    return Terms("ab", 1, cohort, graph.neighbours, graph.threshold, minimum, 4, 32, "s")


@pytest.mark.parametrize("colluding", [0.0, 1 / 3])
@pytest.mark.parametrize("cohort", [3, 4, 5, 6, 8, 9, 10, 12, 20, 30])
def test_no_graph_gives_away_both_masks_of_a_device(cohort: int, colluding: float) -> None:
    graph = choose_graph(cohort, colluding, 0.2)
    bad = min(int(colluding * cohort), graph.neighbours)
    minimum = max(bad + 2, int(0.8 * cohort))
    if minimum == cohort:
        with pytest.raises(SecureSumError, match=f"{cohort - 1} survivors of at least {cohort}"):
            shares_of_two_stories(terms_of(cohort, graph, minimum), bad)
        return
    own, pair = shares_of_two_stories(terms_of(cohort, graph, minimum), bad)
    assert min(len(own), len(pair)) < graph.threshold


def test_one_share_less_would_give_them_away() -> None:
    """What an honest device's check is for: without it, a lower threshold gives both masks away."""
    terms = terms_of(9, Graph(8, 3), 7)
    with pytest.raises(SecureSumError, match="threshold of 3 of 8 neighbours is too low"):
        shares_of_two_stories(terms, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "check_graph", lambda *terms: None)
        own, pair = shares_of_two_stories(terms, 0)
    assert min(len(own), len(pair)) >= terms.threshold
    assert recover(own, terms.threshold) != recover(pair, terms.threshold)


@pytest.mark.parametrize("terms", [(6, 5, 2, 3), (100, 99, 34, 80), (300, 100, 34, 240), (300, 100, 50, 240)])
def test_a_device_refuses_the_graphs_of_a_server_that_cheats(terms: tuple[int, int, int, int]) -> None:
    cohort, neighbours, threshold, minimum = terms
    weak = terms_of(cohort, Graph(neighbours, threshold), minimum)
    for colluding in (0.0, 1 / 3):
        with pytest.raises(SecureSumError, match="two sets of survivors could be unmasked"):
            device.advertise(Identity(Ed25519PrivateKey.generate()), weak, 0, colluding=colluding)


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("colluding", [0.0, 0.1, 0.2, 1 / 3])
def test_a_device_accepts_what_the_server_chooses(colluding: float, dropout: float) -> None:
    """One predicate: no server chooses a graph that devices with the same assumptions refuse."""
    for cohort in (*range(3, 24), 50, 99, 100, 157, 300):
        graph, minimum = choose_graph(cohort, colluding, dropout), cohort - int(dropout * cohort)
        check_graph(graph, cohort, minimum, colluding)
        assert 2 * graph.threshold > graph.neighbours + min(int(colluding * cohort), graph.neighbours) * (
            graph.neighbours == cohort - 1
        )


def shown(honest: int, colluding: int, terms: Terms, least: int = 2) -> list[frozenset[int]]:
    """Show an honest device only some of the honest others and all that collude; return whom of these it picks.

    There is one entry for each of several draws; those that collude have the highest positions.
    """
    identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(1 + honest + colluding)]
    states = [device.advertise(identity, terms, p, least) for p, identity in enumerate(identities)]
    adverts = b"".join(state.replies["keys"] for state in states[1:])
    members = {identity.public for identity in identities}
    picked = (unpack(device.share(states[0], adverts, members, least).replies["shares"], SEALED) for _ in range(3))
    return [frozenset(each) for each in picked]


def test_a_device_shares_nothing_among_those_that_collude_alone() -> None:
    """A third of 54 collude, the terms let all 18 neighbours do so by chance, and no key of the others is shown."""
    with pytest.raises(SecureSumError, match="over 19 devices, and as many as 18 of 54"):
        shown(0, 18, terms_of(54, Graph(18, 18), 19))
    with pytest.raises(SecureSumError, match="over 20 devices, and as many as 18 of 54"):
        shown(0, 18, terms_of(54, Graph(18, 18), 20))
    for honest in (0, 12, 24):
        with pytest.raises(SecureSumError, match="too few for a threshold of 18"):
            shown(honest, 18, terms_of(54, Graph(18, 18), 43))


def test_hidden_keys_do_not_lift_those_that_collude_above_what_the_threshold_is_made_for() -> None:
    """100 of 300 collude, and the keys of 82 honest devices are hidden: a device picks fewer neighbours."""
    graph = choose_graph(300, 1 / 3, 0.2)
    for picked in shown(117, 100, terms_of(300, graph, 217), least=217):
        bad = sum(position > 117 for position in picked)
        assert graph.threshold < len(picked) < graph.neighbours and 2 * graph.threshold > len(picked) + bad
    count = count_picks(graph, 300, 217)
    chance = chance_of_two_stories(217, 100, count, graph.threshold)
    assert 300 * chance <= 2**-40 < 300 * chance_of_two_stories(217, 100, graph.neighbours, graph.threshold)


def chance_of_two_stories(others: int, bad: int, picks: int, threshold: int) -> float:
    """Return the chance that so many of a device's picks collude that two sets of survivors can be opened."""
    hits = range(max(2 * threshold - picks, 0), min(bad, picks) + 1)
    return sum(comb(bad, c) * comb(others - bad, picks - c) for c in hits) / comb(others, picks)


@pytest.mark.parametrize("dropout", [0.1, 0.2])
@pytest.mark.parametrize("cohort", [4, 5, 8, 10, 30, 57, 58, 59, 60, 80, 100, 300, 1000])
def test_as_many_may_drop_out_before_their_keys_are_shown_as_later(cohort: int, dropout: float) -> None:
    """Whenever they do, the round is safe, and hardly less likely to end in a sum than if all drop out in the end."""
    graph, gone = choose_graph(cohort, 1 / 3, dropout), int(dropout * cohort)
    minimum = max(int((1 - dropout) * cohort), least_minimum(graph, cohort, 1 / 3))
    check_graph(graph, cohort, minimum, 1 / 3)
    assert minimum <= cohort - gone
    for early in sorted({0, 1, gone // 2, gone - 1, gone} & set(range(gone + 1))):
        others, bad, late = cohort - 1 - early, cohort // 3, gone - early
        picks = count_picks(graph, cohort, others)
        assert cohort * chance_of_two_stories(others, bad, picks, graph.threshold) <= 2**-40
        left = range(max(picks - late, 0), graph.threshold)  # of the picks: fewer than the threshold
        lost = sum(comb(late, picks - n) * comb(others - late, n) for n in left) / comb(others, picks)
        assert cohort * lost <= 2 ** -(19 if early else 20)
        if graph.neighbours == cohort - 1:
            assert picks == others, "in a complete graph, all are picked, and no chance is taken"


def test_too_few_keys_end_a_round_before_anybody_is_shown_them() -> None:
    terms = terms_of(54, Graph(18, 18), 43)
    identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(43)]
    server = ServerRound(terms, {identity.public for identity in identities})
    for p, identity in enumerate(identities):
        server.take_keys(p, device.advertise(identity, terms, p).replies["keys"])
    with pytest.raises(SecureSumError, match="42 other devices of a cohort of 54 have sent keys, too few"):
        server.check_keys()


def test_a_device_refuses_a_sum_over_those_that_may_all_collude() -> None:
    with pytest.raises(SecureSumError, match="over 3 devices, and as many as 3 of 9"):
        check_graph(Graph(8, 6), 9, 3, 1 / 3)
    with pytest.raises(SecureSumError, match="over 4 devices, and as many as 3 of 9"):
        check_graph(Graph(8, 6), 9, 4, 1 / 3)  # it and its enemies
    with pytest.raises(SecureSumError, match="over 67 devices, and as many as 33 of 100"):
        check_graph(choose_graph(100, 1 / 3, 0.2), 100, 67, 1 / 3)  # most honest devices are in every sum
    assert least_threshold(300, 20, 1 / 3) > 20, "of 20 neighbours of 300 devices, all may collude"
