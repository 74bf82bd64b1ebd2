"""An attack by which a server hides the keys of honest devices, so that more of those shown collude than a third.

Every device knows the size of the cohort from the signed terms, and picks its neighbours among those whose keys it is
shown. If it took what it is shown for a fair part of the cohort, two things would follow:

* a graph in which each device has so few neighbours that all of them could be the server's own, if the server shows
  a device no others: the sum is then that device's vector;
* a graph whose threshold withstands the colluding share of the whole cohort, but not that of the devices shown: the
  server tells two sets of survivors (`two_sets_of_survivors` in `fedoel.simulations.audit.active`).

`least_minimum` and `count_picks` of `fedoel.protocol.secagg.graph` forbid both. The cohort is the smallest one in which
the attack would succeed in every draw of neighbours. Devices whose keys are hidden are not asked anything, so that only
those that are shown have to be run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.graph import Graph, least_minimum, least_threshold
from ...protocol.secagg.keys import Identity
from ...protocol.secagg.terms import to_bitmap
from .hostile import HostileRound, HostileServer, everybody, terms_of
from .target import VICTIM, ActiveAttack, Target, not_masked, outcome_of

NAME = "keys of honest devices that are hidden"
MOST = 300  # devices of a cohort in which keys are hidden: beyond that, the attack takes minutes


@dataclass(frozen=True, slots=True)
class Hiding:
    """A cohort in which a server hides keys.

    Parameters
    ----------
    cohort, colluding
        Number of devices, and of members of the server's own among them.
    honest
        Number of honest devices whose keys are shown, the victim included.
    graph
        Neighbours and threshold of the terms, as devices accept them.
    """

    cohort: int
    colluding: int
    honest: int
    graph: Graph


def hidden_keys(target: Target) -> Iterable[ActiveAttack]:
    """Hide keys of honest devices: all of them from the victim, and so many that the server's own are half of them."""
    if not target.secure:
        return [not_masked(NAME)]
    share, least = target.trust.colluding, target.small_trust.least_cohort
    return [
        _attacked(target, f"{NAME}: all but members of the server's own", _all_hidden(share, least)),
        _attacked(target, f"{NAME}: until every other one shown is the server's own", _half_hidden(share, least)),
    ]


def _attacked(target: Target, name: str, hiding: Hiding | None) -> ActiveAttack:
    if hiding is None:
        return ActiveAttack(name, f"does not apply: there is no such cohort of {MOST} devices or less")
    own = [Identity(Ed25519PrivateKey.generate()) for _ in range(hiding.colluding)]
    server = target.server(f"hidden-{hiding.cohort}", hiding.honest)
    server.signed_list = server.sign_list(own)
    share = target.trust.colluding
    # The minimum that devices ask for, and the one with which the server would be done.
    fewest = {least_minimum(hiding.graph, hiding.cohort, share), hiding.colluding + 1}
    recovered = False
    for number, minimum in enumerate(sorted(fewest, reverse=True), start=1):
        a_round = _round(target, server, hiding, number, minimum)
        a_round = replace(a_round, accomplices=dict(enumerate(own, start=hiding.honest)))
        recovered = recovered or _victim_alone(a_round)
    return ActiveAttack(name, outcome_of(server, recovered), recovered)


def _round(target: Target, server: HostileServer, hiding: Hiding, number: int, minimum: int) -> HostileRound:
    """Return a round over the devices that are shown; the places of all others are of nobody."""
    noise = target.plan.noise_multiplier
    plan = PrivacyPlan.make(target.plan.parts, hiding.cohort, minimum, noise)
    request = target.request(server)
    terms = terms_of(request, plan, hiding.cohort, hiding.graph, number)
    return HostileRound(server, terms, plan, request, everybody(range(hiding.honest)))


def _victim_alone(a_round: HostileRound) -> bool:
    """Tell half of the honest devices that the victim has dropped out; return whether its vector can be computed."""
    shown = {*a_round.up_to_masked(), *a_round.accomplices}
    stories = [to_bitmap(shown - gone, a_round.terms) for gone in (set[int](), {VICTIM})]
    heard = {position: stories[position % 2] for position in a_round.transcript.masked}
    a_round.each(lambda position: a_round.confirm(position, heard[position]), heard)
    a_round.each(lambda position: a_round.unmask(position, heard[position]), list(a_round.confirmed))
    return any(opened.positions == {VICTIM} for opened in a_round.transcript.opened_sums())


def _all_hidden(share: float, least: int) -> Hiding | None:
    """Return the smallest cohort whose terms allow so few neighbours that all of them may be the server's own.

    With these, the victim's sum is over as many as its owner asks for.
    """
    for cohort in range(3, MOST + 1):
        colluding = math.floor(share * cohort)
        for neighbours in range(2, colluding + 1) if colluding + 1 >= least else ():
            if (threshold := least_threshold(cohort, neighbours, share)) <= neighbours:
                return Hiding(cohort, colluding, 1, Graph(neighbours, threshold))
    return None


def _half_hidden(share: float, least: int) -> Hiding | None:
    """Return the smallest cohort in which those that collude are too many of the fewest that have to be shown.

    All that are shown are neighbours, so that no draw decides. Both sets of survivors are as large as devices ask for,
    without the victim, too. Each is confirmed by those that collude, and by half of the honest devices shown; a
    device's own signature does not count for it.
    """
    for cohort in range(3, MOST + 1):
        colluding, shown = math.floor(share * cohort), 1 + least_threshold(cohort, cohort - 1, share)
        if not colluding or not least <= shown < cohort - 1:
            continue
        threshold, honest = least_threshold(cohort, shown, share), 1 + shown - colluding
        if threshold <= min(shown, colluding + honest // 2 - 1):
            return Hiding(cohort, colluding, honest, Graph(shown, threshold))
    return None
