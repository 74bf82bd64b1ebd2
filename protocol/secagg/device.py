"""The device's side of a round: five phases, each answered once and then always in the same way.

A device trusts the server to route and to count, and checks what could cost it its secrecy: who its neighbours are,
that enough of them take part, and that one set of survivors, confirmed by them, is all that it ever helps to unmask.
Secrets live in the `Round` alone. Whoever loses it has dropped out, and nobody can ask for them again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from ..errors import SecureSumError
from .keys import CONFIRMED, SIGNATURE, Advert, Identity, agree, check_signature, commit, many, public_of
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, new_seed, seal, split, unseal
from .survivors import from_bitmap, pack, unpack
from .terms import Terms

PHASES = ("keys", "shares", "masked", "confirm", "unmask")


@dataclass(frozen=True, slots=True)
class Round:
    """What a device keeps of a round.

    Parameters
    ----------
    terms, position
        The round, and the device's place in it.
    secrets
        By name: seeds of both masks, the private key for seals, and what neighbours have sent. Empty once answered.
    asked, replies
        Digest of the request, and the reply, of every phase that was answered.
    """

    terms: Terms
    position: int
    secrets: Mapping[str, bytes]
    asked: Mapping[str, bytes] = field(default_factory=dict)
    replies: Mapping[str, bytes] = field(default_factory=dict)

    def answered(self, phase: str, request: bytes) -> bool:
        """Whether this very request was answered before.

        Raises
        ------
        SecureSumError
            If another one was, or a phase before it was not.
        """
        if phase in self.asked:
            if self.asked[phase] != hashlib.sha256(request).digest():
                raise SecureSumError(f"the phase {phase!r} of this round was answered already, to another request")
            return True
        missing = [before for before in PHASES[: PHASES.index(phase)] if before not in self.asked]
        if missing:
            raise SecureSumError(f"the phase {phase!r} comes after {missing[0]!r}, which this device has not answered")
        return False

    def answer(self, phase: str, request: bytes, reply: bytes, **secrets: bytes) -> Round:
        """Keep a reply, and secrets that came of it."""
        digest = hashlib.sha256(request).digest()
        return replace(
            self,
            secrets={**self.secrets, **secrets},
            asked={**self.asked, phase: digest},
            replies={**self.replies, phase: reply},
        )


def advertise(identity: Identity, terms: Terms, position: int, least: int = 2) -> Round:
    """Begin a round: draw two secrets and a key for seals; the reply is an `Advert`.

    Parameters
    ----------
    least
        Survivors that this device wants to be among.

    Raises
    ------
    SecureSumError
        If the terms would let a third of the neighbours recover secrets, or too few be a sum.
    """
    terms.neighbours_of(position)
    if terms.minimum < least:
        raise SecureSumError(f"this round may end with {terms.minimum} survivors, and this device wants {least}")
    if 3 * terms.threshold <= terms.neighbours or 3 * terms.minimum <= terms.cohort:
        raise SecureSumError("this round would unmask for too few: its threshold or minimum is a third or less")
    mask_seed, own_seed, seal_key = new_seed(), new_seed(), os.urandom(32)
    advert = Advert.signed(
        identity, terms, position, public_of(mask_key(mask_seed, terms)), public_of(seal_key), commit(own_seed, terms)
    )
    kept = {"mask_seed": mask_seed, "own_seed": own_seed, "seal_key": seal_key}
    return Round(terms, position, kept).answer("keys", terms.digest, advert.to_bytes())


def share(state: Round, adverts: bytes, members: Collection[bytes]) -> Round:
    """Split both secrets among the neighbours that sent keys; the reply is a sealed pair of shares for each.

    Parameters
    ----------
    adverts
        Keys of neighbours, one after the other.
    members
        Identities of the fleet.

    Raises
    ------
    SecureSumError
        If keys are not a member's, not signed, or not a neighbour's; or there are too few.
    """
    if state.answered("shares", adverts):
        return state
    terms, around = state.terms, state.terms.neighbours_of(state.position)
    others = {advert.position: advert for advert in many(adverts)}
    known = {advert.identity for advert in others.values()}
    own = Advert.from_bytes(state.replies["keys"])
    if len(known | {own.identity}) <= len(others) or len(others) * Advert.SIZE != len(adverts):
        raise SecureSumError("one identity or position has several keys in this round")
    if not others.keys() <= set(around):
        raise SecureSumError("keys of a device that is no neighbour")
    for advert in others.values():
        advert.check(terms, members)
    _enough(len(others), terms)
    split_up = [split(state.secrets[name], len(around), terms.threshold) for name in ("mask_seed", "own_seed")]
    sealed = {
        other: seal(
            _seal_key(state, others[other]), (split_up[0][place], split_up[1][place]), (state.position, other), terms
        )
        for place, other in enumerate(around)
        if other in others
    }
    return state.answer("shares", adverts, pack(sealed.items()), adverts=adverts)


def mask(state: Round, incoming: bytes, vector: Callable[[], Cells]) -> Round:
    """Mask a vector, with pair masks for the neighbours whose shares are here.

    Parameters
    ----------
    incoming
        Sealed shares from neighbours, by position.
    vector
        Makes the vector, shape ``(cells,)``; called if the phase was not answered yet.

    Raises
    ------
    SecureSumError
        If shares are not from a neighbour or cannot be opened, or there are too few.
    """
    if state.answered("masked", incoming):
        return state
    terms, adverts = state.terms, _adverts(state)
    sealed = unpack(incoming, SEALED)
    _enough(len(sealed), terms)
    opened = {other: _open(state, adverts, other, part) for other, part in sealed.items()}
    key = mask_key(state.secrets["mask_seed"], terms)
    total = vector().astype(cell_type(terms.bits), copy=True)
    if total.shape != (terms.cells,):
        raise SecureSumError(f"this round sums {terms.cells} cells, not {total.shape}")
    total += own_mask(state.secrets["own_seed"], terms)
    for other in opened:
        pair = pair_key(key, adverts[other].mask_key, terms)
        add_pair_mask(total, pair, state.position, other, terms)
    held = pack((other, b"".join(shares)) for other, shares in opened.items())
    return state.answer("masked", incoming, total.tobytes(), held=held)


def confirm(state: Round, identity: Identity, survivors: bytes) -> Round:
    """Sign the one set of survivors that this device will help to unmask.

    Raises
    ------
    SecureSumError
        If it is too small, or this device is not in it, or another set was signed.
    """
    if state.answered("confirm", survivors):
        return state
    there, terms = from_bitmap(survivors, state.terms), state.terms
    if len(there) < terms.minimum or state.position not in there:
        raise SecureSumError(f"{len(there)} survivors of at least {terms.minimum}, or this device is not among them")
    held = unpack(state.secrets["held"], 2 * SEED)
    if there & set(terms.neighbours_of(state.position)) - held.keys():
        raise SecureSumError("a neighbour is said to be in the sum that was never paired with this device")
    return state.answer("confirm", survivors, identity.sign(CONFIRMED, terms, survivors))


def unmask(state: Round, survivors: bytes, signatures: bytes) -> Round:
    """Give a share for each neighbour: of its own mask if it survived, else of its pair masks. Then forget all.

    Parameters
    ----------
    signatures
        What neighbours have signed in the phase before, by position.

    Raises
    ------
    SecureSumError
        If this is not the set that was confirmed, or too few neighbours have signed it.
    """
    if state.answered("unmask", survivors):
        return state
    state.answered("confirm", survivors)  # raises if it was another set
    terms, adverts = state.terms, _adverts(state)
    signed = unpack(signatures, SIGNATURE)
    if not signed.keys() <= adverts.keys():
        raise SecureSumError("survivors are confirmed by a device that is no neighbour")
    for other, signature in signed.items():
        check_signature(adverts[other].identity, signature, CONFIRMED, terms, survivors)
    _enough(len(signed), terms)
    there = from_bitmap(survivors, terms)
    held = unpack(state.secrets["held"], 2 * SEED)
    given = {other: shares[SEED:] if other in there else shares[:SEED] for other, shares in held.items()}
    return replace(state.answer("unmask", survivors, pack(given.items())), secrets={})


def _enough(count: int, terms: Terms) -> None:
    if count < terms.threshold:
        raise SecureSumError(f"{count} neighbours of at least {terms.threshold} take part")


def _adverts(state: Round) -> dict[int, Advert]:
    return {advert.position: advert for advert in many(state.secrets["adverts"])}


def _seal_key(state: Round, other: Advert) -> bytes:
    return agree(state.secrets["seal_key"], other.seal_key, "seal", state.terms)


def _open(state: Round, adverts: Mapping[int, Advert], other: int, sealed: bytes) -> tuple[bytes, bytes]:
    if other not in adverts:
        raise SecureSumError("shares of a device that is no neighbour")
    return unseal(_seal_key(state, adverts[other]), sealed, (other, state.position), state.terms)
