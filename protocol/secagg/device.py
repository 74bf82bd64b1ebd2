"""The device's side of a round: five phases. A repeated request gets the same reply; a second request is refused.

A device relies on the server for routing. It checks what its secrecy depends on: that members of the fleet have signed
the keys of the whole cohort, that enough of them take part, and that it helps to unmask one set of survivors only,
which its neighbours confirmed. It picks its neighbours itself, at random, when the keys of all are on the table (as in
Bell et al. 2020): a server that cheats cannot place devices that collude with it around another one.
Secrets are kept in the `Round` only. A device that loses its `Round` has dropped out of the round.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import SecureSumError
from .graph import COLLUDING, Graph, check_graph
from .keys import CONFIRMED, SIGNATURE, Advert, AgreementKey, Identity, adverts_from_bytes, check_signature, commit
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, new_seed, seal, split, unseal
from .terms import Terms, bitmap_size, from_bitmap, pack, unpack

RANDOM = random.SystemRandom()
PHASES = ("keys", "shares", "masked", "confirm", "unmask")


@dataclass(frozen=True, slots=True)
class Round:
    """A device's state of a round.

    Parameters
    ----------
    terms, position
        The round's terms, and the device's index in the cohort.
    secrets
        By name: the seeds of both masks, the private sealing key, and what neighbours have sent. Empty after the last
        phase.
    request_digests, replies
        SHA-256 of the request, and the reply, of every phase that was answered.
    """

    terms: Terms
    position: int
    secrets: Mapping[str, bytes]
    request_digests: Mapping[str, bytes] = field(default_factory=dict)
    replies: Mapping[str, bytes] = field(default_factory=dict)

    def answered(self, phase: str, request: bytes) -> bool:
        """Return whether this request was answered before.

        Raises
        ------
        SecureSumError
            If another request of this phase was answered, or an earlier phase was not.
        """
        if phase in self.request_digests:
            if self.request_digests[phase] != hashlib.sha256(request).digest():
                raise SecureSumError(f"the phase {phase!r} of this round was answered already, to another request")
            return True
        missing = [before for before in PHASES[: PHASES.index(phase)] if before not in self.request_digests]
        if missing:
            raise SecureSumError(f"the phase {phase!r} comes after {missing[0]!r}, which this device has not answered")
        return False

    def answer(self, phase: str, request: bytes, reply: bytes, **secrets: bytes) -> Round:
        """Return the state with a reply and new secrets added."""
        digest = hashlib.sha256(request).digest()
        return replace(
            self,
            secrets={**self.secrets, **secrets},
            request_digests={**self.request_digests, phase: digest},
            replies={**self.replies, phase: reply},
        )


def advertise(identity: Identity, terms: Terms, position: int, least: int = 2, colluding: float = COLLUDING) -> Round:
    """Phase ``keys``: draw the seeds of both masks and a sealing key; the reply is an `Advert`.

    Parameters
    ----------
    identity
        Signs the advert.
    terms, position
        The round's terms, and the device's index in the cohort.
    least
        Smallest number of survivors that this device accepts.
    colluding
        Fraction of the cohort that this device takes for colluding with the server.

    Raises
    ------
    SecureSumError
        If the graph is not safe from them (`check_graph`), or the sum could be over fewer than `least` devices.
    """
    terms.check_position(position)
    if terms.minimum < least:
        raise SecureSumError(f"this round may end with {terms.minimum} survivors, and this device wants {least}")
    check_graph(Graph(terms.neighbours, terms.threshold), terms.cohort, terms.minimum, colluding)
    mask_seed, own_seed, seal_key = new_seed(), new_seed(), os.urandom(32)
    advert = Advert.signed(
        identity,
        terms,
        position,
        mask_key(mask_seed, terms).public,
        AgreementKey(seal_key).public,
        commit(own_seed, terms),
    )
    secrets = {"mask_seed": mask_seed, "own_seed": own_seed, "seal_key": seal_key}
    return Round(terms, position, secrets).answer("keys", terms.digest, advert.to_bytes())


def share(state: Round, adverts: bytes, members: Collection[bytes], least: int = 2) -> Round:
    """Phase ``shares``: pick neighbours and share both seeds among them; the reply is a sealed pair of shares for each.

    Parameters
    ----------
    state
        The device's state.
    adverts
        Concatenated adverts of all other devices that sent keys.
    members
        Public keys of the fleet's members, 32 bytes each.
    least
        Smallest number of devices, this one included, whose keys this device has checked.

    Raises
    ------
    SecureSumError
        If an advert is not of a member, or not signed; or there are fewer than the threshold or `least`, or so few
        that those that collude may be too many of them (`fedoel.protocol.secagg.graph.count_picks`).
    """
    if state.answered("shares", adverts):
        return state
    terms, others = state.terms, {advert.position: advert for advert in adverts_from_bytes(adverts)}
    identities = {advert.identity for advert in others.values()}
    own = Advert.from_bytes(state.replies["keys"])
    if len(identities | {own.identity}) <= len(others) or len(others) * Advert.SIZE != len(adverts):
        raise SecureSumError("one identity or position has several keys in this round")
    if state.position in others:
        raise SecureSumError("this device's own position has keys of another device")
    for advert in others.values():
        terms.check_position(advert.position)
        advert.check(terms, members)
    _check_threshold(len(others), terms)
    _check_least(len(others), least)
    neighbours = sorted(RANDOM.sample(sorted(others), terms.picked(len(others))))
    mask_shares, own_shares = (
        split(state.secrets[name], len(neighbours), terms.threshold) for name in ("mask_seed", "own_seed")
    )
    key = AgreementKey(state.secrets["seal_key"])
    sealed = {
        other: seal(key.agree(others[other].seal_key, "seal", terms), pair, (state.position, other), terms)
        for other, pair in zip(neighbours, zip(mask_shares, own_shares, strict=True), strict=True)
    }
    return state.answer("shares", adverts, pack(sealed.items()), adverts=adverts, picked=_positions(neighbours))


def mask(state: Round, incoming: bytes, vector: Callable[[], Cells], least: int = 2) -> Round:
    """Phase ``masked``: mask the vector, with a pair mask for every neighbour that takes part, picked or picking.

    Behind the masked vector, the reply contains the positions of the devices whose shares cannot be opened, 2 bytes
    each. Such a device is paired like the others: it adds the pair mask, too, for which its signed keys are enough.
    This device holds no share of it.

    Parameters
    ----------
    state
        The device's state.
    incoming
        Bitmap of the devices that have sent shares, and behind it the sealed shares for this device, by position.
    vector
        Returns the vector, shape ``(cells,)``; called only if the phase was not answered yet.
    least
        As in `share`.

    Raises
    ------
    SecureSumError
        If a device has shared whose keys were not shown, there are fewer than the threshold, the minimum or `least`, or
        the vector has the wrong shape.
    """
    if state.answered("masked", incoming):
        return state
    terms, adverts, size = state.terms, _adverts(state), bitmap_size(state.terms)
    shared, sealed = from_bitmap(incoming[:size], terms) - {state.position}, unpack(incoming[size:], SEALED)
    if not sealed.keys() <= shared <= adverts.keys():
        raise SecureSumError("shares of a device whose keys were not shown")
    picked = _picked(state) & shared
    _check_threshold(len(picked), terms)
    _check_least(len(shared), max(least, terms.minimum))
    seal_key = AgreementKey(state.secrets["seal_key"])
    opened = {other: _opened(state, seal_key, adverts[other], part) for other, part in sealed.items()}
    key = mask_key(state.secrets["mask_seed"], terms)
    total = vector().astype(cell_type(terms.bits), copy=True)
    if total.shape != (terms.cells,):
        raise SecureSumError(f"this round sums {terms.cells} cells, not {total.shape}")
    total += own_mask(state.secrets["own_seed"], terms)
    for other in picked | sealed.keys():
        pair = pair_key(key, adverts[other].mask_key, terms)
        add_pair_mask(total, pair, state.position, other, terms)
    held = pack((other, b"".join(shares)) for other, shares in opened.items() if shares)
    unopened = _positions(other for other, shares in opened.items() if not shares)
    return state.answer("masked", incoming, total.tobytes() + unopened, held=held, shared=_positions(shared))


def confirm(state: Round, identity: Identity, survivors: bytes, least: int = 2) -> Round:
    """Phase ``confirm``: sign the set of survivors that this device will help to unmask.

    Parameters
    ----------
    state
        The device's state.
    identity
        Signs the set.
    survivors
        Bitmap of positions (`terms.to_bitmap`).
    least
        Smallest number of survivors, itself included; it has checked the keys of all of them.

    Raises
    ------
    SecureSumError
        If the set is smaller than the minimum or `least`, lacks this device or contains one that has not shared, or
        another set was signed before.
    """
    if state.answered("confirm", survivors):
        return state
    positions, terms = from_bitmap(survivors, state.terms), state.terms
    if len(positions) < terms.minimum or state.position not in positions:
        raise SecureSumError(
            f"{len(positions)} survivors of at least {terms.minimum}, or this device is not among them"
        )
    if positions - {state.position} - unpack(state.secrets["shared"], 0).keys():
        raise SecureSumError("the survivors include a device that has not shared its secrets")
    _check_least(len(positions) - 1, least)
    return state.answer("confirm", survivors, identity.sign(CONFIRMED, terms, survivors))


def unmask(state: Round, survivors: bytes, signatures: bytes) -> Round:
    """Phase ``unmask``: send one share per neighbour, of its own mask if it survived, else of its pair masks.

    The returned state contains no secrets any more.

    Parameters
    ----------
    state
        The device's state.
    survivors
        Bitmap of positions.
    signatures
        Signatures of the neighbours from the phase ``confirm``, by position.

    Raises
    ------
    SecureSumError
        If this is not the set that was confirmed, or fewer neighbours than the threshold have signed it.
    """
    if state.answered("unmask", survivors):
        return state
    state.answered("confirm", survivors)  # raises if another set was confirmed
    terms, adverts = state.terms, _adverts(state)
    signed = unpack(signatures, SIGNATURE)
    if not signed.keys() <= _picked(state):
        raise SecureSumError("survivors are confirmed by a device that is no neighbour")
    for other, signature in signed.items():
        check_signature(adverts[other].identity, signature, CONFIRMED, terms, survivors)
    _check_threshold(len(signed), terms)
    positions = from_bitmap(survivors, terms)
    held = unpack(state.secrets["held"], 2 * SEED)
    opened = {other: shares[SEED:] if other in positions else shares[:SEED] for other, shares in held.items()}
    return replace(state.answer("unmask", survivors, pack(opened.items())), secrets={})


def neighbours_keys(state: Round) -> frozenset[bytes]:
    """Return the public keys of the devices that hold shares of this device's secrets, 32 bytes each."""
    adverts = _adverts(state)
    return frozenset(adverts[position].identity for position in _picked(state))


def cohort_keys(state: Round) -> frozenset[bytes]:
    """Return the public keys of all other devices that have signed keys for this round, 32 bytes each."""
    return frozenset(advert.identity for advert in _adverts(state).values())


def survivors_keys(state: Round, survivors: bytes) -> frozenset[bytes]:
    """Return the public keys of the other devices among survivors, a bitmap; all of them have signed keys."""
    positions, adverts = from_bitmap(survivors, state.terms) - {state.position}, _adverts(state)
    return frozenset(adverts[position].identity for position in positions)


def _check_threshold(count: int, terms: Terms) -> None:
    if count < terms.threshold:
        raise SecureSumError(f"{count} neighbours of at least {terms.threshold} take part")


def _check_least(others: int, least: int) -> None:
    """Check how many devices a sum has that this device knows to be members; the terms only claim a number."""
    if 1 + others < least:
        raise SecureSumError(f"{1 + others} known devices take part, this one included, and it wants {least}")


def _positions(positions: Iterable[int]) -> bytes:
    return pack((position, b"") for position in positions)


def _picked(state: Round) -> frozenset[int]:
    return frozenset(unpack(state.secrets["picked"], 0))


def _adverts(state: Round) -> dict[int, Advert]:
    return {advert.position: advert for advert in adverts_from_bytes(state.secrets["adverts"])}


def _opened(state: Round, key: AgreementKey, sender: Advert, sealed: bytes) -> tuple[bytes, bytes] | None:
    """Return a neighbour's pair of shares; None if its seal does not hold."""
    try:
        shared = key.agree(sender.seal_key, "seal", state.terms)
        return unseal(shared, sealed, (sender.position, state.position), state.terms)
    except SecureSumError:
        return None
