"""Who is to blame when a share is wrong: the device that dealt it, or the one that holds it.

The server sees neither. A holder that cannot open a share, or sends a wrong one, is in dispute with the share's dealer,
and one of the two lies. Of a device's neighbours, at most c = 2t - k - 1 lie if no more of them collude than the graph
is made for (`fedoel.protocol.secagg.graph`). Hence a device in dispute with more than c neighbours lies, since one of
them is honest. Of any other pair in dispute the server knows only that one of both lies, and does without both: each
such pair costs the liars one of theirs (player elimination, Hirt, Maurer and Przydatek 2000, ASIACRYPT).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter

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
    """

    terms: Terms
    pairs: set[tuple[int, int]] = field(default_factory=set)
    unrecovered: set[int] = field(default_factory=set)

    def add(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add pairs of a dealer and a holder."""
        self.pairs.update(pairs)

    def holders(self, dealer: int) -> frozenset[int]:
        """Return the devices that dispute a dealer's shares."""
        return frozenset(holder for other, holder in self.pairs if other == dealer)

    @property
    def most_liars(self) -> int:
        """Number of liars among a device's neighbours that the graph is made for, at least one."""
        return max(1, 2 * self.terms.threshold - self.terms.neighbours - 1)

    def liars(self) -> frozenset[int]:
        """Return the devices that lie, unless more of somebody's neighbours do than the graph is made for.

        A dealer whose mask cannot be recovered lies unless more than half of the shares beyond the threshold were
        changed by their holders. Where more masks are lost than there may be liars, holders have done that, and nobody
        is named for it.
        """
        pairs, liars = {frozenset(pair) for pair in self.pairs}, set[int]()
        while pairs:
            # Who has the most disputes is named first: disputes with a liar say nothing about the other device.
            counts = Counter(position for pair in pairs for position in pair)
            worst, count = max(sorted(counts.items()), key=itemgetter(1))
            if count <= self.most_liars:
                break
            liars.add(worst)
            pairs = {pair for pair in pairs if worst not in pair}
        return frozenset(liars | (self.unrecovered if len(self.unrecovered) <= self.most_liars else set()))

    def doubtful(self) -> frozenset[int]:
        """Return pairs of other devices, all distinct, one of each of which lies."""
        chosen, liars = set[int](), self.liars()
        for pair in sorted(self.pairs):
            if not liars.intersection(pair) and not chosen.intersection(pair):
                chosen.update(pair)
        return frozenset(chosen)
