"""The server's side of a round: routes keys and shares, adds masked vectors up, and removes what does not cancel.

It keeps what each phase brought by position and refuses what is malformed, one device at a time; a round fails closed,
as a whole, when too few are left. Whoever calls it decides how long to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import SecureSumError
from .keys import CONFIRMED, SIGNATURE, Advert, check_signature, commit, public_of
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, recover
from .survivors import pack, to_bitmap, unpack
from .terms import Terms


@dataclass
class ServerRound:
    """One round under way. Each phase is opened by its request and filled by replies, which may be refused."""

    terms: Terms
    members: Collection[bytes]
    adverts: dict[int, Advert] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, Cells] = field(default_factory=dict)
    signatures: dict[int, bytes] = field(default_factory=dict)
    opened: dict[int, dict[int, bytes]] = field(default_factory=dict)

    # Requests

    def adverts_for(self, position: int) -> bytes:
        """Keys of a device's neighbours."""
        around = self.terms.neighbours_of(position)
        return b"".join(self.adverts[other].to_bytes() for other in around if other in self.adverts)

    def shares_for(self, position: int) -> bytes:
        """Sealed shares for a device."""
        around = self.terms.neighbours_of(position)
        return pack((other, self.sealed[other][position]) for other in around if position in self.sealed.get(other, {}))

    def signatures_for(self, position: int) -> bytes:
        """What a device's neighbours have signed; a threshold of them is enough."""
        around = [other for other in self.terms.neighbours_of(position) if other in self.signatures]
        return pack((other, self.signatures[other]) for other in around[: self.terms.threshold])

    @property
    def survivors(self) -> bytes:
        """Who is in the sum."""
        return to_bitmap(self.masked, self.terms)

    # Replies

    def take_keys(self, position: int, reply: bytes) -> None:
        """Take an advert.

        Raises
        ------
        SecureSumError
            If it is not a member's, not signed, for another position, or of an identity that is here already.
        """
        advert = Advert.from_bytes(reply)
        if advert.position != position or advert.identity in {other.identity for other in self.adverts.values()}:
            raise SecureSumError("advertised keys are for another position, or of an identity that has sent some")
        advert.check(self.terms, self.members)
        self.adverts[position] = advert

    def take_shares(self, position: int, reply: bytes) -> None:
        """Take sealed shares, one pair for each neighbour that has sent keys; raises if they are not that."""
        sealed = unpack(reply, SEALED)
        if sealed.keys() != {other for other in self.terms.neighbours_of(position) if other in self.adverts}:
            raise SecureSumError("sealed shares are not for the neighbours that sent keys")
        self.sealed[position] = sealed

    def take_masked(self, position: int, reply: bytes) -> None:
        """Take a masked vector; raises if it has another size."""
        if len(reply) != self.terms.cells * self.terms.bits // 8:
            raise SecureSumError(f"a masked vector takes {self.terms.cells} cells, not {len(reply)} bytes")
        self.masked[position] = np.frombuffer(reply, dtype=cell_type(self.terms.bits))

    def take_confirmation(self, position: int, reply: bytes) -> None:
        """Take a signature of the survivors; raises if it does not hold."""
        if len(reply) != SIGNATURE:
            raise SecureSumError("a signature of survivors has another size")
        check_signature(self.adverts[position].identity, reply, CONFIRMED, self.terms, self.survivors)
        self.signatures[position] = reply

    def take_opened(self, position: int, reply: bytes) -> None:
        """Take shares for unmasking; raises if they are of devices that this one has none of."""
        opened = unpack(reply, SEED)
        if not opened.keys() <= {other for other in self.sealed if position in self.sealed[other]}:
            raise SecureSumError("shares of a device that gave none to this one")
        self.opened[position] = opened

    # The sum

    def check(self, there: Collection[int], least: int = 0) -> None:
        """Fail closed unless enough devices have got through a phase.

        Raises
        ------
        SecureSumError
            If fewer than the minimum, or than `least`, are left.
        """
        needed = max(least, self.terms.minimum)
        if len(there) < needed:
            raise SecureSumError(f"{len(there)} devices of at least {needed} are left")

    def total(self) -> Cells:
        """Sum of the survivors' vectors, exact modulo ``2**bits``, shape ``(cells,)``.

        Raises
        ------
        SecureSumError
            If a secret cannot be recovered, or shares of it are wrong.
        """
        terms = self.terms
        self.check(self.masked)
        result = np.zeros(terms.cells, dtype=cell_type(terms.bits))
        for masked in self.masked.values():
            result += masked
        for position in self.masked:
            seed = self._recovered(position)
            if commit(seed, terms) != self.adverts[position].commitment:
                raise SecureSumError("a survivor's own mask was put together from wrong shares")
            result -= own_mask(seed, terms)
        for position in self.sealed.keys() - self.masked.keys():
            self._remove_pairs(result, position)
        return result

    def _remove_pairs(self, result: Cells, gone: int) -> None:
        """Take out what survivors have added for a device that dropped after it had shared its secrets."""
        terms, partners = self.terms, [p for p in self.terms.neighbours_of(gone) if p in self.masked]
        if not partners:
            return
        key = mask_key(self._recovered(gone), terms)
        if public_of(key) != self.adverts[gone].mask_key:
            raise SecureSumError("the pair masks of a device that dropped were put together from wrong shares")
        for partner in partners:
            pair = pair_key(key, self.adverts[partner].mask_key, terms)
            # What the partner added for `gone`, `gone` would have added with the other sign.
            add_pair_mask(result, pair, gone, partner, terms)

    def _recovered(self, position: int) -> bytes:
        around = self.terms.neighbours_of(position)
        shares: Mapping[int, bytes] = {
            place: self.opened[other][position]
            for place, other in enumerate(around)
            if position in self.opened.get(other, {})
        }
        return recover(shares, self.terms.threshold)
