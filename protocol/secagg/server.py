"""The server's side of a round: route keys and shares, add the masked vectors, and remove the remaining masks.

Replies are stored by phase and position. A malformed reply excludes one device; the round as a whole fails closed when
too few devices remain. Wrong shares are corrected as far as the others determine the secret, and say who lies
(`fedoel.protocol.secagg.disputes`). The caller decides how long to wait for replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from ..errors import SecureSumError
from .decoding import recover_despite_errors, wrong_shares
from .disputes import Disputes
from .keys import CONFIRMED, KEY, SIGNATURE, Advert, AgreementKey, check_signature, commit
from .masks import Cells, add_pair_mask, cell_type, mask_key, own_mask, pair_key
from .shares import SEALED, SEED, recover
from .terms import Terms, pack, to_bitmap, unpack

TRIAL_KEY = bytes(range(KEY))  # any private key: whether a public key is of low order does not depend on it


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
    disputes
        Shares that could not be opened, or were wrong.
    """

    terms: Terms
    members: Collection[bytes]
    adverts: dict[int, Advert] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, Cells] = field(default_factory=dict)
    signatures: dict[int, bytes] = field(default_factory=dict)
    opened: dict[int, dict[int, bytes]] = field(default_factory=dict)
    disputes: Disputes = field(init=False)
    _wrong: Counter[int] = field(default_factory=Counter)  # wrong shares by the position that sent them
    _encoded: dict[int, bytes] = field(default_factory=dict)  # adverts as they were sent
    _identities: set[bytes] = field(default_factory=set)
    _trial_key: AgreementKey = field(default_factory=lambda: AgreementKey(TRIAL_KEY))
    _right: dict[int, list[int]] = field(default_factory=dict)  # indices of shares that gave a dealer's seed

    def __post_init__(self) -> None:
        self.disputes = Disputes(self.terms)

    # Requests

    def adverts_for(self, position: int) -> bytes:
        """Return the concatenated adverts of all other devices."""
        return b"".join(advert for other, advert in self._encoded.items() if other != position)

    def shares_for(self, position: int) -> bytes:
        """Return who has sent shares, as a bitmap, and the sealed shares for a device, by their senders' positions."""
        shares = ((other, self.sealed[other][position]) for other in self._senders(position))
        return to_bitmap(self.sealed, self.terms) + pack(shares)

    def signatures_for(self, position: int) -> bytes:
        """Return a threshold of the signatures of a device's neighbours, by position."""
        signers = [other for other in self._holders(position) if other in self.signatures]
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
            If it is not of a member, not signed, for another position, of an identity that sent one before, or has keys
            with which no other device could agree on a mask.
        """
        advert = Advert.from_bytes(reply)
        if advert.position != position or advert.identity in self._identities:
            raise SecureSumError("advertised keys are for another position, or of an identity that has sent some")
        advert.check(self.terms, self.members)
        for key in (advert.mask_key, advert.seal_key):
            self._trial_key.agree(key, "trial", self.terms)
        self.adverts[position] = advert
        self._encoded[position] = reply
        self._identities.add(advert.identity)

    def take_shares(self, position: int, reply: bytes) -> None:
        """Accept sealed shares; raise `SecureSumError` if they are not for as many devices as it has to pick."""
        sealed, others = unpack(reply, SEALED), self.adverts.keys() - {position}
        if not sealed.keys() <= others or len(sealed) != self.terms.picked(len(others)):
            raise SecureSumError("sealed shares are not for as many devices that sent keys as have to be picked")
        self.sealed[position] = sealed
        self.disputes.holders_each = len(sealed)

    def take_masked(self, position: int, reply: bytes) -> None:
        """Accept a masked vector, and what its device says about shares that it could not open.

        Raises
        ------
        SecureSumError
            If the vector's size is wrong, or the shares were not for this device.
        """
        size = self.terms.cells * self.terms.bits // 8
        if len(reply) < size:
            raise SecureSumError(f"a masked vector takes {self.terms.cells} cells, not {len(reply)} bytes")
        unopened = unpack(reply[size:], 0).keys()
        if not unopened <= set(self._senders(position)):
            raise SecureSumError(f"a masked vector takes {self.terms.cells} cells, and then positions of senders only")
        self.masked[position] = np.frombuffer(reply[:size], dtype=cell_type(self.terms.bits))
        self.disputes.add((dealer, position) for dealer in unopened)

    def take_confirmation(self, position: int, reply: bytes) -> None:
        """Accept a signature of the survivors; raise `SecureSumError` if it is invalid."""
        if len(reply) != SIGNATURE:
            raise SecureSumError("a signature of survivors has another size")
        check_signature(self.adverts[position].identity, reply, CONFIRMED, self.terms, self.survivors)
        self.signatures[position] = reply

    def take_opened(self, position: int, reply: bytes) -> None:
        """Accept shares for unmasking; raise `SecureSumError` if one is of a device that sent this device none."""
        opened = unpack(reply, SEED)
        if not opened.keys() <= set(self._senders(position)):
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

    def check_keys(self) -> None:
        """Check that devices are shown enough keys to share their secrets; raises `SecureSumError` as they would."""
        self.check(self.adverts, self.terms.threshold + 1)
        self.terms.picked(len(self.adverts) - 1)

    def check_openable(self, holders: Collection[int]) -> None:
        """Check that enough neighbours hold shares of every mask that is going to be removed.

        Parameters
        ----------
        holders
            Positions of the devices that may still send shares.

        Raises
        ------
        SecureSumError
            If there are fewer than the threshold for any device.
        """
        for dealer in self._masks_to_remove():
            left = set(self._holders(dealer)) & set(holders) - self.disputes.holders(dealer)
            if len(left) < self.terms.threshold:
                raise SecureSumError(
                    f"{len(left)} devices of at least {self.terms.threshold} hold shares of a mask that must be removed"
                )

    def total(self) -> Cells:
        """Return the sum of the survivors' vectors, exact modulo ``2**bits``, shape ``(cells,)``.

        Raises
        ------
        SecureSumError
            If a seed cannot be recovered, because shares are missing or too many of them are wrong.
        """
        terms = self.terms
        self.check(self.masked)
        seeds = {dealer: self._recovered_seed(dealer) for dealer in self._masks_to_remove()}
        if self._wrong or self.disputes.unrecovered:
            self._check_all_shares()
        if self.disputes.unrecovered:
            raise SecureSumError(
                f"{len(self.disputes.unrecovered)} masks cannot be removed: too many of their shares are wrong"
            )
        result = np.zeros(terms.cells, dtype=cell_type(terms.bits))
        for masked in self.masked.values():
            result += masked
        for dealer, seed in seeds.items():
            assert seed is not None
            if dealer in self.masked:
                result -= own_mask(seed, terms)
            else:
                self._remove_pair_masks(result, dealer, mask_key(seed, terms))
        return result

    def _masks_to_remove(self) -> list[int]:
        """Return the survivors, and the devices that dropped out after they were paired with a survivor."""
        dropped = self.sealed.keys() - self.masked.keys()
        return [*self.masked, *sorted(position for position in dropped if self._partners(position))]

    def _holders(self, dealer: int) -> list[int]:
        """Return the devices that a device has picked, ascending: the order of its shares."""
        return sorted(self.sealed.get(dealer, {}))

    def _senders(self, holder: int) -> list[int]:
        """Return the devices that have picked a device."""
        return [dealer for dealer, sealed in self.sealed.items() if holder in sealed]

    def _partners(self, dropped: int) -> list[int]:
        """Return the survivors that have added a pair mask for a device that has dropped out."""
        around = {*self._holders(dropped), *self._senders(dropped)}
        return sorted(around & self.masked.keys())

    def _remove_pair_masks(self, result: Cells, dropped: int, key: AgreementKey) -> None:
        """Remove the pair masks that survivors added for a device that dropped out after the phase ``shares``."""
        for partner in self._partners(dropped):
            pair = pair_key(key, self.adverts[partner].mask_key, self.terms)
            # The dropped device would have added this mask with the opposite sign, so adding it cancels the partner's.
            add_pair_mask(result, pair, dropped, partner, self.terms)

    def _recovered_seed(self, dealer: int) -> bytes | None:
        """Return the seed of a survivor's own mask, or of a dropped device's pair masks; None if too many are wrong.

        Raises `SecureSumError` if there are fewer shares than the threshold. Shares of devices that have sent wrong
        ones are used last: a liar costs one search for wrong shares, and not one for each of its neighbours.
        """
        threshold, around, shares = self.terms.threshold, self._holders(dealer), self._shares_of(dealer)
        is_right, best = self._check_of(dealer), sorted(shares, key=lambda index: (self._wrong[around[index]], index))
        seed = recover({index: shares[index] for index in best[:threshold]}, threshold)
        if is_right(seed):
            self._right[dealer] = best[:threshold]
            return seed
        trusted = {index: share for index, share in shares.items() if not self._wrong[around[index]]}
        recovered = recover_despite_errors(trusted, threshold, is_right)
        recovered = recovered or recover_despite_errors(shares, threshold, is_right)
        if recovered is None:
            self.disputes.unrecovered.add(dealer)
            return None
        self._right[dealer] = sorted(shares.keys() - recovered.wrong)[:threshold]
        self._wrong.update(around[index] for index in recovered.wrong)
        return recovered.seed

    def _check_all_shares(self) -> None:
        """Compare all shares with those that have given the seeds: one wrong share was met, and there may be more."""
        for dealer, right in self._right.items():
            around = self._holders(dealer)
            wrong = wrong_shares(self._shares_of(dealer), right)
            self.disputes.add((dealer, around[index]) for index in wrong)

    def _shares_of(self, dealer: int) -> dict[int, bytes]:
        """Return the shares of a device's seed that its neighbours have sent, by their indices."""
        around = enumerate(self._holders(dealer))
        return {index: self.opened[other][dealer] for index, other in around if dealer in self.opened.get(other, {})}

    def _check_of(self, dealer: int) -> Callable[[bytes], bool]:
        """Return the check of a recovered seed by what its owner has published."""
        terms, advert = self.terms, self.adverts[dealer]
        if dealer in self.masked:
            return lambda seed: commit(seed, terms) == advert.commitment
        return lambda seed: mask_key(seed, terms).public == advert.mask_key
