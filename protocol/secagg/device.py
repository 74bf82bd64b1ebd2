"""The device's side of a round: five phases. A repeated request gets the same reply; a second request is refused.

A device relies on the server for routing and counting. It checks what its secrecy depends on: who its neighbours are,
that enough of them take part, and that it helps to unmask one set of survivors only, which its neighbours confirmed.
Secrets are kept in the `Round` only. A device that loses its `Round` has dropped out of the round.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from ..errors import SecureSumError
from .graph import COLLUDING, Graph, check_graph
from .keys import CONFIRMED, SIGNATURE, Advert, Identity, adverts_from_bytes, agree, check_signature, commit, public_of
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, new_seed, seal, split, unseal
from .terms import Terms, from_bitmap, pack, unpack

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
    terms.neighbours_of(position)
    if terms.minimum < least:
        raise SecureSumError(f"this round may end with {terms.minimum} survivors, and this device wants {least}")
    check_graph(Graph(terms.neighbours, terms.threshold), terms.cohort, terms.minimum, colluding)
    mask_seed, own_seed, seal_key = new_seed(), new_seed(), os.urandom(32)
    advert = Advert.signed(
        identity, terms, position, public_of(mask_key(mask_seed, terms)), public_of(seal_key), commit(own_seed, terms)
    )
    secrets = {"mask_seed": mask_seed, "own_seed": own_seed, "seal_key": seal_key}
    return Round(terms, position, secrets).answer("keys", terms.digest, advert.to_bytes())


def share(state: Round, adverts: bytes, members: Collection[bytes], least: int = 2) -> Round:
    """Phase ``shares``: share both seeds among the neighbours; the reply is a sealed pair of shares for each.

    Parameters
    ----------
    state
        The device's state.
    adverts
        Concatenated adverts of the neighbours that sent keys.
    members
        Public keys of the fleet's members, 32 bytes each.
    least
        Smallest number of devices, this one included, whose keys this device has checked.

    Raises
    ------
    SecureSumError
        If an advert is not of a member or neighbour, or not signed; or there are fewer than the threshold or `least`.
    """
    if state.answered("shares", adverts):
        return state
    terms, neighbours = state.terms, state.terms.neighbours_of(state.position)
    others = {advert.position: advert for advert in adverts_from_bytes(adverts)}
    identities = {advert.identity for advert in others.values()}
    own = Advert.from_bytes(state.replies["keys"])
    if len(identities | {own.identity}) <= len(others) or len(others) * Advert.SIZE != len(adverts):
        raise SecureSumError("one identity or position has several keys in this round")
    if not others.keys() <= set(neighbours):
        raise SecureSumError("keys of a device that is no neighbour")
    for advert in others.values():
        advert.check(terms, members)
    _check_threshold(len(others), terms, least)
    mask_shares, own_shares = (
        split(state.secrets[name], len(neighbours), terms.threshold) for name in ("mask_seed", "own_seed")
    )
    sealed = {
        other: seal(_seal_key(state, others[other]), pair, (state.position, other), terms)
        for other, pair in zip(neighbours, zip(mask_shares, own_shares, strict=True), strict=True)
        if other in others
    }
    return state.answer("shares", adverts, pack(sealed.items()), adverts=adverts)


def mask(state: Round, incoming: bytes, vector: Callable[[], Cells], least: int = 2) -> Round:
    """Phase ``masked``: mask the vector, with a pair mask for every neighbour that sent shares.

    Behind the masked vector, the reply contains the positions of the neighbours whose shares cannot be opened, 2 bytes
    each. Such a neighbour is paired like the others: it adds the pair mask, too, for which its signed keys are enough.
    This device holds no share of it.

    Parameters
    ----------
    state
        The device's state.
    incoming
        Sealed shares from neighbours, by position.
    vector
        Returns the vector, shape ``(cells,)``; called only if the phase was not answered yet.
    least
        As in `share`.

    Raises
    ------
    SecureSumError
        If shares are not of a neighbour, there are fewer than the threshold or `least`, or the vector has the wrong
        shape.
    """
    if state.answered("masked", incoming):
        return state
    terms, adverts = state.terms, _adverts(state)
    sealed = unpack(incoming, SEALED)
    _check_threshold(len(sealed), terms, least)
    if not sealed.keys() <= adverts.keys():
        raise SecureSumError("shares of a device that is no neighbour")
    opened = {other: _opened(state, adverts[other], part) for other, part in sealed.items()}
    key = mask_key(state.secrets["mask_seed"], terms)
    total = vector().astype(cell_type(terms.bits), copy=True)
    if total.shape != (terms.cells,):
        raise SecureSumError(f"this round sums {terms.cells} cells, not {total.shape}")
    total += own_mask(state.secrets["own_seed"], terms)
    for other in opened:
        pair = pair_key(key, adverts[other].mask_key, terms)
        add_pair_mask(total, pair, state.position, other, terms)
    held = pack((other, b"".join(shares)) for other, shares in opened.items() if shares)
    unopened = pack((other, b"") for other, shares in opened.items() if not shares)
    return state.answer("masked", incoming, total.tobytes() + unopened, held=held, unopened=unopened)


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
        Smallest number of survivors whose keys this device has checked, itself included.

    Raises
    ------
    SecureSumError
        If the set is smaller than the minimum or lacks this device, contains a neighbour that sent no shares or fewer
        known devices than `least`, or another set was signed before.
    """
    if state.answered("confirm", survivors):
        return state
    positions, terms = from_bitmap(survivors, state.terms), state.terms
    if len(positions) < terms.minimum or state.position not in positions:
        raise SecureSumError(
            f"{len(positions)} survivors of at least {terms.minimum}, or this device is not among them"
        )
    paired = unpack(state.secrets["held"], 2 * SEED).keys() | unpack(state.secrets["unopened"], 0).keys()
    if positions & set(terms.neighbours_of(state.position)) - paired:
        raise SecureSumError("the survivors include a neighbour that was not paired with this device")
    _check_least(len(positions & paired), least)
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
    if not signed.keys() <= adverts.keys():
        raise SecureSumError("survivors are confirmed by a device that is no neighbour")
    for other, signature in signed.items():
        check_signature(adverts[other].identity, signature, CONFIRMED, terms, survivors)
    _check_threshold(len(signed), terms)
    positions = from_bitmap(survivors, terms)
    held = unpack(state.secrets["held"], 2 * SEED)
    opened = {other: shares[SEED:] if other in positions else shares[:SEED] for other, shares in held.items()}
    return replace(state.answer("unmask", survivors, pack(opened.items())), secrets={})


def neighbours_keys(state: Round) -> frozenset[bytes]:
    """Return the public keys of the neighbours that this device has checked, 32 bytes each."""
    return frozenset(advert.identity for advert in _adverts(state).values())


def _check_threshold(count: int, terms: Terms, least: int = 2) -> None:
    if count < terms.threshold:
        raise SecureSumError(f"{count} neighbours of at least {terms.threshold} take part")
    _check_least(count, least)


def _check_least(others: int, least: int) -> None:
    """Check how many devices a sum has that this device knows to be members; the terms only claim a number."""
    if 1 + others < least:
        raise SecureSumError(f"{1 + others} known devices take part, this one included, and it wants {least}")


def _adverts(state: Round) -> dict[int, Advert]:
    return {advert.position: advert for advert in adverts_from_bytes(state.secrets["adverts"])}


def _seal_key(state: Round, other: Advert) -> bytes:
    return agree(state.secrets["seal_key"], other.seal_key, "seal", state.terms)


def _opened(state: Round, sender: Advert, sealed: bytes) -> tuple[bytes, bytes] | None:
    """Return a neighbour's pair of shares; None if its seal does not hold."""
    try:
        return unseal(_seal_key(state, sender), sealed, (sender.position, state.position), state.terms)
    except SecureSumError:
        return None
