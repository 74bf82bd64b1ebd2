"""Who is to blame when a share is wrong: the device that dealt it, or the one that holds it.

The server sees neither. A holder that cannot open a share, or sends a wrong one, is in dispute with the share's dealer,
and one of the two lies. Of the k holders that a device has picked at random, at most c = 2t - k - 1 lie, if no more of
the cohort do than the graph is made for (`fedoel.protocol.secagg.graph`). Hence a dealer in dispute with more than c of
its holders lies, since one of them is honest. Liars may all deal to one holder: it lies if it is in dispute with more
dealers than there may be liars in the cohort, which are c n / k of n at most. Of any other pair in dispute the server
knows only that one of both lies, and does without both: each such pair costs the liars one of theirs (player
elimination, Hirt, Maurer and Przydatek 2000, ASIACRYPT).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .terms import Terms


@dataclass
class Disputes:
    """The disputes of a round.

    Parameters
    ----------
    terms
        The round's terms.
    pairs
        Positions of dealer and holder.
    unrecovered
        Positions of the dealers whose masks the shares of their neighbours do not open.
    holders_each
        Number of holders that each dealer has picked: fewer than the terms say, where some devices have sent no keys.
    """

    terms: Terms
    pairs: set[tuple[int, int]] = field(default_factory=set)
    unrecovered: set[int] = field(default_factory=set)
    holders_each: int = 0

    def __post_init__(self) -> None:
        self.holders_each = self.holders_each or self.terms.neighbours

    def add(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add pairs of a dealer and a holder."""
        self.pairs.update(pairs)

    def holders(self, dealer: int) -> frozenset[int]:
        """Return the devices that dispute a dealer's shares."""
        return frozenset(holder for other, holder in self.pairs if other == dealer)

    @property
    def most_liars(self) -> tuple[int, int]:
        """Number of liars that the graph is made for, at least one: among a dealer's holders, and in the cohort."""
        terms = self.terms
        of_cohort = max(1, 2 * terms.threshold - terms.neighbours - 1) * terms.cohort // terms.neighbours
        return max(1, 2 * terms.threshold - self.holders_each - 1), of_cohort

    def liars(self) -> frozenset[int]:
        """Return the devices that lie, unless more do than the graph is made for.

        A dealer whose mask cannot be recovered lies unless more than half of the shares beyond the threshold were
        changed by their holders. Where more masks are lost than there may be liars, holders have done that, and nobody
        is named for it.
        """
        pairs, liars, (of_holders, of_cohort) = set(self.pairs), set[int](), self.most_liars
        while True:
            dealers, holders = (Counter(pair[role] for pair in pairs) for role in (0, 1))
            caught = {p for p, count in dealers.items() if count > of_holders}
            caught |= {p for p, count in holders.items() if count > of_cohort}
            if not caught:
                break
            # Who has the most disputes is named first: disputes with a liar say nothing about the other device.
            worst = max(sorted(caught), key=lambda position: dealers[position] + holders[position])
            liars.add(worst)
            pairs = {pair for pair in pairs if worst not in pair}
        return frozenset(liars | (self.unrecovered if len(self.unrecovered) <= of_cohort else set()))

    def doubtful(self) -> frozenset[int]:
        """Return pairs of other devices, all distinct, one of each of which lies."""
        chosen, liars = set[int](), self.liars()
        for pair in sorted(self.pairs):
            if not liars.intersection(pair) and not chosen.intersection(pair):
                chosen.update(pair)
        return frozenset(chosen)
