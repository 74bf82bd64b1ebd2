"""The server's side of a round: route keys and shares, add the masked vectors, and remove the remaining masks.

Replies are stored by phase and position. A malformed reply excludes one device; the round as a whole fails closed when
too few devices remain. The caller decides how long to wait for replies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import SecureSumError
from .keys import CONFIRMED, SIGNATURE, Advert, check_signature, commit, public_of
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, recover
from .terms import Terms, pack, to_bitmap, unpack


@dataclass
class ServerRound:
    """One round in progress: the accepted replies of each phase.

    Parameters
    ----------
    terms
        The round's terms.
    members
        Public keys of the fleet's members, 32 bytes each.
    adverts, sealed, masked, signatures, opened
        Replies of the five phases, by position.
    """

    terms: Terms
    members: Collection[bytes]
    adverts: dict[int, Advert] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, Cells] = field(default_factory=dict)
    signatures: dict[int, bytes] = field(default_factory=dict)
    opened: dict[int, dict[int, bytes]] = field(default_factory=dict)

    # Requests

    def adverts_for(self, position: int) -> bytes:
        """Return the concatenated adverts of a device's neighbours."""
        neighbours = self.terms.neighbours_of(position)
        return b"".join(self.adverts[other].to_bytes() for other in neighbours if other in self.adverts)

    def shares_for(self, position: int) -> bytes:
        """Return the sealed shares for a device, by its neighbours' positions."""
        senders = [other for other in self.terms.neighbours_of(position) if position in self.sealed.get(other, {})]
        return pack((other, self.sealed[other][position]) for other in senders)

    def signatures_for(self, position: int) -> bytes:
        """Return a threshold of the signatures of a device's neighbours, by position."""
        signers = [other for other in self.terms.neighbours_of(position) if other in self.signatures]
        return pack((other, self.signatures[other]) for other in signers[: self.terms.threshold])

    @property
    def survivors(self) -> bytes:
        """Bitmap of the devices in the sum."""
        return to_bitmap(self.masked, self.terms)

    # Replies

    def take_keys(self, position: int, reply: bytes) -> None:
        """Accept an advert.

        Raises
        ------
        SecureSumError
            If it is not of a member, not signed, for another position, or of an identity that sent one before.
        """
        advert = Advert.from_bytes(reply)
        if advert.position != position or advert.identity in {other.identity for other in self.adverts.values()}:
            raise SecureSumError("advertised keys are for another position, or of an identity that has sent some")
        advert.check(self.terms, self.members)
        self.adverts[position] = advert

    def take_shares(self, position: int, reply: bytes) -> None:
        """Accept sealed shares; raise `SecureSumError` if they are not one pair for each neighbour that sent keys."""
        sealed = unpack(reply, SEALED)
        if sealed.keys() != {other for other in self.terms.neighbours_of(position) if other in self.adverts}:
            raise SecureSumError("sealed shares are not for the neighbours that sent keys")
        self.sealed[position] = sealed

    def take_masked(self, position: int, reply: bytes) -> None:
        """Accept a masked vector; raise `SecureSumError` if its size is wrong."""
        if len(reply) != self.terms.cells * self.terms.bits // 8:
            raise SecureSumError(f"a masked vector takes {self.terms.cells} cells, not {len(reply)} bytes")
        self.masked[position] = np.frombuffer(reply, dtype=cell_type(self.terms.bits))

    def take_confirmation(self, position: int, reply: bytes) -> None:
        """Accept a signature of the survivors; raise `SecureSumError` if it is invalid."""
        if len(reply) != SIGNATURE:
            raise SecureSumError("a signature of survivors has another size")
        check_signature(self.adverts[position].identity, reply, CONFIRMED, self.terms, self.survivors)
        self.signatures[position] = reply

    def take_opened(self, position: int, reply: bytes) -> None:
        """Accept shares for unmasking; raise `SecureSumError` if one is of a device that sent this device none."""
        opened = unpack(reply, SEED)
        if not opened.keys() <= {other for other in self.sealed if position in self.sealed[other]}:
            raise SecureSumError("shares of a device that gave none to this one")
        self.opened[position] = opened

    # The sum

    def check(self, positions: Collection[int], least: int = 0) -> None:
        """Check that enough devices have completed a phase.

        Raises
        ------
        SecureSumError
            If there are fewer than the minimum, or than `least`.
        """
        needed = max(least, self.terms.minimum)
        if len(positions) < needed:
            raise SecureSumError(f"{len(positions)} devices of at least {needed} are left")

    def total(self) -> Cells:
        """Return the sum of the survivors' vectors, exact modulo ``2**bits``, shape ``(cells,)``.

        Raises
        ------
        SecureSumError
            If a seed cannot be recovered, or was recovered from wrong shares.
        """
        terms = self.terms
        self.check(self.masked)
        result = np.zeros(terms.cells, dtype=cell_type(terms.bits))
        for masked in self.masked.values():
            result += masked
        for position in self.masked:
            seed = self._recovered_seed(position)
            if commit(seed, terms) != self.adverts[position].commitment:
                raise SecureSumError("a survivor's own mask was recovered from wrong shares")
            result -= own_mask(seed, terms)
        for position in self.sealed.keys() - self.masked.keys():
            self._remove_pair_masks(result, position)
        return result

    def _remove_pair_masks(self, result: Cells, dropped: int) -> None:
        """Remove the pair masks that survivors added for a device that dropped out after the phase ``shares``."""
        terms, partners = self.terms, [p for p in self.terms.neighbours_of(dropped) if p in self.masked]
        if not partners:
            return
        key = mask_key(self._recovered_seed(dropped), terms)
        if public_of(key) != self.adverts[dropped].mask_key:
            raise SecureSumError("the pair masks of a device that dropped out were recovered from wrong shares")
        for partner in partners:
            pair = pair_key(key, self.adverts[partner].mask_key, terms)
            # The dropped device would have added this mask with the opposite sign, so adding it cancels the partner's.
            add_pair_mask(result, pair, dropped, partner, terms)

    def _recovered_seed(self, position: int) -> bytes:
        shares: Mapping[int, bytes] = {
            index: self.opened[other][position]
            for index, other in enumerate(self.terms.neighbours_of(position))
            if position in self.opened.get(other, {})
        }
        return recover(shares, self.terms.threshold)
