"""A server that tells two stories: half of a device's neighbours hear that it survived, the others that it dropped out.

Every honest device runs its own code with all of its checks. Those that collude sign both stories and give both shares.
"""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.graph import Graph, check_graph, choose_graph, least_threshold
from fedoel.protocol.secagg.keys import CONFIRMED, Identity
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.shares import SEED, recover
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
    own, pair = shares_of_two_stories(terms_of(cohort, graph, max(2, int(0.8 * cohort))), bad)
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


def test_a_device_refuses_a_sum_over_those_that_may_all_collude() -> None:
    with pytest.raises(SecureSumError, match="over 3 devices, and as many as 3 of 9"):
        check_graph(Graph(8, 6), 9, 3, 1 / 3)
    assert least_threshold(300, 20, 1 / 3) > 20, "of 20 neighbours of 300 devices, all may collude"
