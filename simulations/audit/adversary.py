"""What a server that cheats can compute of a secure sum, from everything that it has received in one round.

A masked vector is ``y_u = x_u + own mask + pair masks`` (`fedoel.protocol.secagg.masks`). The server knows an own mask
if it has a threshold of shares of its seed, and a pair mask if it has a threshold of shares of either device's other
seed, or if one of the two devices is a member of its own. All other masks are pseudorandom and independent. So a
combination of masked vectors is free of masks if and only if it has the same coefficient for devices with an unknown
pair mask between them, and none for devices with an unknown own mask. What the server learns are therefore the sums
over the connected components of unknown pair masks in which every own mask is known: `Transcript.opened_sums`.

This uses nothing of the device's code, and no secret of a device but those that it has given away.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...protocol.errors import SecureSumError
from ...protocol.secagg.keys import CONFIRMED, Advert, AgreementKey, Identity, commit
from ...protocol.secagg.masks import Cells, add_pair_mask, mask_key, own_mask, pair_key
from ...protocol.secagg.shares import SEALED, SEED, new_seed, recover, unseal
from ...protocol.secagg.terms import Terms, bitmap_size, from_bitmap, unpack


@dataclass(frozen=True, slots=True)
class Accomplice:
    """A member of the server's own in one round: it signs every set of survivors, and gives away every share."""

    identity: Identity
    mask_key: AgreementKey
    seal_key: AgreementKey
    advert: Advert

    @classmethod
    def joining(cls, terms: Terms, position: int, identity: Identity | None = None) -> Accomplice:
        """Make keys for a position of a round; without an identity, those of nobody that the fleet's list names."""
        identity = identity or Identity(Ed25519PrivateKey.generate())
        own, seal_key = mask_key(new_seed(), terms), AgreementKey(new_seed() + new_seed())
        commitment = commit(new_seed(), terms)
        advert = Advert.signed(identity, terms, position, own.public, seal_key.public, commitment)
        return cls(identity, own, seal_key, advert)

    def sign(self, survivors: bytes, terms: Terms) -> bytes:
        """Confirm a set of survivors."""
        return self.identity.sign(CONFIRMED, terms, survivors)

    def shares(self, dealer: Advert, sealed: bytes, terms: Terms) -> tuple[bytes, bytes]:
        """Open the shares that a device has sealed for it: of the seed of its pair masks, and of its own mask."""
        key = self.seal_key.agree(dealer.seal_key, "seal", terms)
        return unseal(key, sealed, (dealer.position, self.advert.position), terms)


PairKeys = dict[int, AgreementKey | None]
"""The keys of devices' pair masks, as far as the server knows them, by position."""


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """A sum of vectors of honest devices, by their positions, that the server can compute; shape ``(cells,)``."""

    positions: frozenset[int]
    cells: Cells


@dataclass
class Transcript:
    """Everything that the server has of one round.

    Parameters
    ----------
    terms
        The round's terms.
    accomplices
        Members of the server's own, by position.
    adverts, sealed, masked
        Replies of honest devices, by position; sealed shares by holder.
    partners
        Positions with which a device has added a pair mask, by what it was sent.
    own_shares, pair_shares
        Shares that honest devices have given, by dealer and holder: of the seed of its own mask, or of its pair masks.
    """

    terms: Terms
    accomplices: dict[int, Accomplice] = field(default_factory=dict)
    adverts: dict[int, Advert] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, Cells] = field(default_factory=dict)
    partners: dict[int, frozenset[int]] = field(default_factory=dict)
    own_shares: dict[int, dict[int, bytes]] = field(default_factory=dict)
    pair_shares: dict[int, dict[int, bytes]] = field(default_factory=dict)
    _unsealed: dict[tuple[int, int], tuple[bytes, bytes]] = field(default_factory=dict)  # by dealer and accomplice

    def note_masked(self, position: int, request: bytes, reply: bytes) -> None:
        """Note a masked vector, and which pair masks are in it: picked devices that have shared, and picking ones."""
        size, terms = bitmap_size(self.terms), self.terms
        shared, delivered = from_bitmap(request[:size], terms), unpack(request[size:], SEALED)
        self.partners[position] = frozenset(self.sealed[position].keys() & shared | delivered.keys())
        width = terms.bits // 8
        self.masked[position] = np.frombuffer(reply[: terms.cells * width], dtype=f"<u{width}")

    def note_opened(self, holder: int, survivors: Collection[int], reply: bytes) -> None:
        """Note the shares that a device has given to unmask a set of survivors."""
        for dealer, part in unpack(reply, SEED).items():
            shares = self.own_shares if dealer in survivors else self.pair_shares
            shares.setdefault(dealer, {})[holder] = part

    def opened_sums(self) -> list[OpenedSum]:
        """Return the sums over the smallest sets of honest devices that can be computed; they have no device twice."""
        seeds = {dealer: self._seed(dealer, own=True) for dealer in self.masked}
        pair_keys = {dealer: self._pair_key(dealer) for dealer in self.adverts}
        hidden = {position: self._hidden_partners(position, pair_keys) for position in self.masked}
        usable = {position for position, seed in seeds.items() if seed is not None}
        while True:  # without those whose pair masks no usable vector cancels
            left = {p for p in usable if all(q in usable and p in hidden[q] for q in hidden[p])}
            if left == usable:
                break
            usable = left
        sums = []
        while left:
            component, waiting = set[int](), [next(iter(left))]
            while waiting:
                component.add(position := waiting.pop())
                waiting += hidden[position] - component
            left = left - component
            sums.append(OpenedSum(frozenset(component), self._sum(component, seeds, pair_keys)))
        return sums

    def _hidden_partners(self, position: int, pair_keys: PairKeys) -> frozenset[int]:
        """Return the devices with which a device has added a pair mask that the server does not know."""
        if pair_keys[position]:
            return frozenset()
        partners = self.partners[position]
        return frozenset(q for q in partners if q not in self.accomplices and not pair_keys[q])

    def _sum(self, component: set[int], seeds: dict[int, bytes | None], pair_keys: PairKeys) -> Cells:
        terms, total = self.terms, np.zeros_like(next(iter(self.masked.values())))
        for position in component:
            total += self.masked[position]
            total -= own_mask(seeds[position] or b"", terms)
            for other in self.partners[position] - component:
                # The other side of this mask has the opposite sign, and removes it.
                add_pair_mask(total, self._pair(position, other, pair_keys), other, position, terms)
        return total

    def _pair(self, position: int, other: int, pair_keys: PairKeys) -> bytes:
        """Return the key of a pair mask, from a private key that the server knows."""
        if own := pair_keys.get(position):
            return pair_key(own, self._advert(other).mask_key, self.terms)
        known = self.accomplices[other].mask_key if other in self.accomplices else pair_keys[other]
        assert known is not None  # pairs whose keys nobody knows are within a component
        return pair_key(known, self.adverts[position].mask_key, self.terms)

    def _advert(self, position: int) -> Advert:
        return self.accomplices[position].advert if position in self.accomplices else self.adverts[position]

    def _pair_key(self, dealer: int) -> AgreementKey | None:
        """Return a device's private key of pair masks, if its seed can be recovered."""
        seed = self._seed(dealer, own=False)
        return None if seed is None else mask_key(seed, self.terms)

    def _seed(self, dealer: int, own: bool) -> bytes | None:
        """Recover a seed from shares that honest devices have given, and those that accomplices hold."""
        terms, given = self.terms, (self.own_shares if own else self.pair_shares).get(dealer, {})
        shares = {}
        for index, holder in enumerate(sorted(self.sealed.get(dealer, {}))):
            if holder in given:
                shares[index] = given[holder]
            elif holder in self.accomplices:
                if (dealer, holder) not in self._unsealed:
                    pair = self.accomplices[holder].shares(self.adverts[dealer], self.sealed[dealer][holder], terms)
                    self._unsealed[dealer, holder] = pair
                shares[index] = self._unsealed[dealer, holder][own]
        try:
            return recover(shares, terms.threshold)
        except SecureSumError:
            return None
