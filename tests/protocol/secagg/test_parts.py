"""The primitives of a round, against published test vectors and independent implementations."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from math import comb, prod

import numpy as np
import pytest
import shamirs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.secagg import shares
from fedoel.protocol.secagg.graph import choose_graph
from fedoel.protocol.secagg.keys import ADVERTISED, CONFIRMED, AgreementKey, Identity, check_signature, derive
from fedoel.protocol.secagg.masks import add_pair_mask, cell_type, expand, mask_key, own_mask
from fedoel.protocol.secagg.terms import Terms, from_bitmap, pack, to_bitmap, unpack

TERMS = Terms("ab", 1, 11, 10, 4, 6, 32, 16, "s")


def test_masks_are_the_published_key_stream() -> None:
    """RFC 8439, appendix A.1, test vector 1: a key of zeros, counter and nonce zero."""
    stream = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert expand(bytes(32), TERMS).tobytes() == stream
    assert (expand(bytes(32), TERMS) == np.frombuffer(stream, "<u2")).all()


def test_key_agreement_is_the_published_one() -> None:
    """RFC 7748, section 6.1: Bob's derived key comes from the shared secret of the example."""
    bob = AgreementKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice_public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    secret = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    both = b"".join(sorted((alice_public, bob.public)))
    assert bob.agree(alice_public, "x", TERMS) == derive(secret, b"x\0" + both, TERMS)
    assert bob.agree(alice_public, "x", TERMS) != bob.agree(alice_public, "y", TERMS)


def test_a_public_key_of_low_order_is_refused() -> None:
    with pytest.raises(SecureSumError, match="cannot be used"):
        AgreementKey(bytes(range(32))).agree(bytes(32), "x", TERMS)


@given(st.binary(max_size=200), st.data())
def test_a_signature_holds_for_its_message_purpose_and_round(body: bytes, data: st.DataObject) -> None:
    """One library signs and another checks; any flipped bit is found."""
    identity = Identity(Ed25519PrivateKey.from_private_bytes(data.draw(st.binary(min_size=32, max_size=32))))
    signature = identity.sign(CONFIRMED, TERMS, body)
    check_signature(identity.public, signature, CONFIRMED, TERMS, body)
    bit = data.draw(st.integers(0, 511))
    flipped = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    for wrong in (
        (identity.public, flipped, CONFIRMED, TERMS, body),
        (identity.public, signature[:-1], CONFIRMED, TERMS, body),
        (identity.public, signature, ADVERTISED, TERMS, body),
        (identity.public, signature, CONFIRMED, replace(TERMS, number=2), body),
        (identity.public, signature, CONFIRMED, TERMS, body + b"x"),
        (bytes(32), signature, CONFIRMED, TERMS, body),
        (identity.public[:-1], signature, CONFIRMED, TERMS, body),
    ):
        with pytest.raises(SecureSumError, match="does not hold"):
            check_signature(*wrong)


def test_an_identity_of_low_order_signs_nothing() -> None:
    """RFC 8032 without a check of the key's order accepts one signature of the neutral point for every message."""
    neutral = b"\1" + bytes(31)
    anything = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(anything, b"any message")
    with pytest.raises(SecureSumError, match="does not hold"):
        check_signature(neutral, anything, CONFIRMED, TERMS, b"any message")


@given(seed=st.integers(0, shares.PRIME - 1), data=st.data())
@settings(max_examples=60)
def test_any_threshold_of_shares_recovers_a_secret(seed: int, data: st.DataObject) -> None:
    secret = seed.to_bytes(16, "big")
    parts = shares.split(secret, 9, 4)
    chosen = data.draw(st.lists(st.integers(0, 8), min_size=4, max_size=9, unique=True))
    assert shares.recover({index: parts[index] for index in chosen}, 4) == secret
    points = [shamirs.share(index + 1, int.from_bytes(parts[index], "big"), shares.PRIME) for index in chosen]
    assert shamirs.interpolate(points, threshold=4) == seed


@given(points=st.sets(st.integers(0, 600), min_size=1, max_size=40))
@settings(max_examples=60)
def test_coefficients_are_those_of_lagrange(points: set[int]) -> None:
    """Computed from the points that are missing, they are the products over those that are there."""
    indices = tuple(sorted(points))
    for index, weight in zip(indices, shares._lagrange_weights(indices), strict=True):
        others = [other + 1 for other in indices if other != index]
        numerator, denominator = prod(others), prod(other - index - 1 for other in others)
        assert (weight * denominator - numerator) % shares.PRIME == 0


def test_fewer_shares_than_the_threshold_reveal_nothing() -> None:
    parts = shares.split(bytes(16), 5, 3)
    with pytest.raises(SecureSumError, match="2 shares of at least 3"):
        shares.recover({0: parts[0], 1: parts[1]}, 3)
    # Two shares are consistent with every secret: some polynomial passes through them and any value at zero.
    assert shares.recover({0: parts[0], 1: parts[1]}, 2) != bytes(16)


def test_sealed_shares_open_on_their_route_only() -> None:
    key, pair = bytes(range(32)), (b"a" * 16, b"b" * 16)
    sealed = shares.seal(key, pair, (1, 2), TERMS)
    assert len(sealed) == shares.SEALED and shares.unseal(key, sealed, (1, 2), TERMS) == pair
    for route, changed in (((2, 1), sealed), ((1, 2), sealed[:-1] + bytes([sealed[-1] ^ 1])), ((1, 2), b"")):
        with pytest.raises(SecureSumError, match="cannot be opened"):
            shares.unseal(key, changed, route, TERMS)
    with pytest.raises(SecureSumError, match="cannot be opened"):
        shares.unseal(key, sealed, (1, 2), replace(TERMS, number=2))


def test_pair_masks_cancel() -> None:
    total = np.zeros(TERMS.cells, cell_type(16))
    add_pair_mask(total, bytes(32), 1, 2, TERMS)
    assert (total == expand(bytes(32), TERMS)).all(), "the lower position adds"
    add_pair_mask(total, bytes(32), 2, 1, TERMS)
    assert not total.any()


def test_a_seed_gives_other_keys_for_other_purposes_and_rounds() -> None:
    seed, later = bytes(16), Terms("ab", 2, 11, 10, 4, 6, 32, 16, "s")
    masks = [own_mask(seed, TERMS), expand(mask_key(seed, TERMS).public, TERMS), own_mask(seed, later)]
    assert not any((one == other).all() for one, other in itertools.combinations(masks, 2))


def chance(hits: int, others: int, marked: int, drawn: int) -> float:
    """Chance that at least so many of the drawn others are marked, by counting every way to draw them."""
    ways = (comb(marked, k) * comb(others - marked, drawn - k) for k in range(max(0, hits), drawn + 1))
    return sum(ways) / comb(others, drawn)


@pytest.mark.parametrize(
    ("cohort", "colluding", "dropout"),
    [(100, 0.1, 0.1), (500, 0.1, 0.2), (1000, 0.2, 0.05), (1000, 1 / 3, 0.1), (1000, 1 / 3, 0.2)],
)
def test_graphs_keep_their_promises_with_as_few_neighbours_and_shares_as_can_be(
    cohort: int, colluding: float, dropout: float
) -> None:
    bad, gone, graph = int(colluding * cohort), int(dropout * cohort), choose_graph(cohort, colluding, dropout)

    def keeps(neighbours: int, threshold: int) -> bool:
        # Two sets of survivors need 2 t shares of k neighbours, of which the colluding ones give two each.
        caught = cohort * chance(2 * threshold - neighbours, cohort - 1, bad, neighbours)
        lost = cohort * chance(neighbours - threshold + 1, cohort - 1, gone, neighbours)
        cut = cohort**2 * ((bad + gone) / cohort) ** neighbours
        return max(caught, cut) <= 2**-40 and lost <= 2**-20

    assert keeps(graph.neighbours, graph.threshold)
    assert not keeps(graph.neighbours, graph.threshold - 1)
    assert not any(keeps(graph.neighbours - 2, threshold) for threshold in range(2, graph.neighbours - 1))


def test_thresholds_lie_between_colluding_and_remaining_devices() -> None:
    assert choose_graph(10, 1 / 3, 0.2).threshold == 7  # 2 t > 9 + 3
    for cohort, dropout in itertools.product((100, 1000), (0.1, 0.2)):
        graph = choose_graph(cohort, 1 / 3, dropout)
        assert (1 + 1 / 3) / 2 < graph.threshold / graph.neighbours < 1 - dropout + 0.02
    assert choose_graph(1000, 1 / 3, 0.1).neighbours < 220 < choose_graph(1000, 1 / 3, 0.2).neighbours < 510


def test_a_random_graph_keeps_its_threshold() -> None:
    rng, graph = np.random.default_rng(0), choose_graph(200, 1 / 3, 0.2)
    bad, gone = set(range(66)), set(rng.permutation(200)[:40].tolist())
    for _ in range(200):
        for position in range(200):
            others = np.delete(np.arange(200), position)
            neighbours = set(rng.permutation(others)[: graph.neighbours].tolist())
            assert len(neighbours & bad) < graph.threshold <= len(neighbours - gone)


@pytest.mark.parametrize(("cohort", "colluding", "dropout"), [(2, 0.0, 0.0), (10, 1 / 3, 0.3), (3, 1 / 3, 0.5)])
def test_no_graph(cohort: int, colluding: float, dropout: float) -> None:
    with pytest.raises(SecureSumError, match="no threshold"):
        choose_graph(cohort, colluding, dropout)


@given(positions=st.sets(st.integers(0, 10)))
def test_bitmaps(positions: set[int]) -> None:
    assert from_bitmap(to_bitmap(positions, TERMS), TERMS) == positions


def test_bad_bitmaps_and_parts() -> None:
    for bad in (b"", b"\xff", b"\xff\xff", bytes(3)):
        with pytest.raises(SecureSumError):
            from_bitmap(bad, TERMS)
    assert unpack(pack([(3, b"xy"), (1, b"ab")]), 2) == {1: b"ab", 3: b"xy"}
    for data in (b"abc", pack([(1, b"xy"), (1, b"zz")])):
        with pytest.raises(SecureSumError):
            unpack(data, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cohort", 2), ("neighbours", 3), ("neighbours", 11), ("threshold", 1), ("threshold", 11), ("minimum", 12),
     ("bits", 8), ("cells", 0), ("cells", -1), ("run", ""), ("number", 1.5), ("cohort", True), ("more", 1)],
)  # fmt: skip
def test_bad_terms(name: str, value: object) -> None:
    fields = json.loads(TERMS.to_json()) | {name: value}
    with pytest.raises(SecureSumError):
        Terms.from_json(json.dumps(fields))
    assert Terms.from_json(TERMS.to_json()) == TERMS
