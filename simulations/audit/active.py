"""Attacks of a server that cheats on honest devices, with the terms of a run's configuration.

The server here has every key of the fleet. Devices run their own code, with what the fleet of this run would propose
for `[trust]` (`fedoel.server.operate.proposal`), but for a `least-cohort` that fits, and play small games without a
language model. A cohort has at most `LARGEST` devices, so that an attack costs seconds; minimum, graph, threshold and
noise are those that the run makes for a cohort of this size. What the server gets is computed from what it has received
(`fedoel.simulations.audit.adversary`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from numpy.typing import NDArray

from ...protocol.errors import FedoelError
from ...protocol.messages import request_to_records
from ...protocol.secagg.keys import Identity
from ...protocol.secagg.terms import to_bitmap
from ...strategies.mean import LocalMean
from ...strategies.secure_mean import SecureMean
from ..grid import server_identity
from .hidden import hidden_keys
from .hostile import HostileServer, resigned
from .target import VICTIM, ActiveAttack, Target, not_masked, outcome_of

REPEATS = 20  # of one request
SATURATED = 1e4  # weights of a context under which a policy is sure of one command everywhere, and gradients are zero


def attack(target: Target) -> list[ActiveAttack]:
    """Make every attack once."""
    with server_identity():
        return [made for one in ATTACKS for made in one(target)]


def two_sets_of_survivors(target: Target) -> Iterable[ActiveAttack]:
    """Tell half of the devices that the victim has survived, and the others that it has dropped out."""
    name = "two sets of survivors"
    if not target.secure:
        return [not_masked(name)]
    # Half of the devices that hear a story, without the one that is asked: as many sign it.
    made, half = [], max(2, target.cohort // 2 - 1)
    for threshold, words in ((0, "the run's threshold"), (half, f"a threshold of {half}")):
        server = target.server(f"stories-{threshold}", target.cohort)
        a_round = target.round(server, target.request(server), range(target.cohort), threshold=threshold)
        masked = a_round.up_to_masked()
        stories = [to_bitmap(set(masked) - gone, a_round.terms) for gone in (set[int](), {VICTIM})]
        heard = {position: stories[position % 2] for position in masked}
        a_round.each(lambda p, r=a_round, h=heard: r.confirm(p, h[p]), masked)  # type: ignore[misc]
        a_round.each(lambda p, r=a_round, h=heard: r.unmask(p, h[p]), list(a_round.confirmed))  # type: ignore[misc]
        alone = any(opened.positions == {VICTIM} for opened in a_round.transcript.opened_sums())
        where = f"{words} of {target.graph.neighbours} neighbours"
        made.append(ActiveAttack(f"{name}, with {where}", outcome_of(server, alone), alone))
    return made


def phantom_cohort(target: Target) -> Iterable[ActiveAttack]:
    """Claim a cohort of which nobody but the victim is honest."""
    name = "a cohort that is made up"
    if not target.secure:
        return [not_masked(name)]
    return [
        _phantoms(target, f"{name}: nobody behind the terms", None, signed=False),
        _phantoms(target, f"{name}: members that no list names", 0, signed=False),
        _phantoms(target, f"{name}: members that the fleet's key has made", 0, signed=True),
        _phantoms(target, f"{name}: the same, and the owner names the devices that he knows", 3, signed=True),
    ]


def _phantoms(target: Target, name: str, known: int | None, signed: bool) -> ActiveAttack:
    """Put the victim among members of the server's own.

    Parameters
    ----------
    known
        Number of devices that the victim's owner knows, 0 for none; None for a cohort without anybody else.
    signed
        Whether the list of members names the server's own.
    """
    own = [Identity(Ed25519PrivateKey.generate()) for _ in range(target.cohort - 1)]
    server = target.server(name.replace(" ", "-").replace(":", ""), 1)
    if known:
        keys = [Identity(Ed25519PrivateKey.generate()).public.hex() for _ in range(known)]
        server = target.server(f"known-{known}", 1, replace(target.small_trust, known=" ".join(keys)))
    if signed:
        server.signed_list = server.sign_list(own)
    a_round = target.round(server, target.request(server), [VICTIM])
    if known is not None:
        a_round = replace(a_round, accomplices=dict(enumerate(own, start=1)))
    a_round.up_to_masked()
    a_round.open({VICTIM, *a_round.accomplices})
    recovered = bool(a_round.transcript.opened_sums())
    promised = not signed or bool(known) or bool(target.trust.known)
    return ActiveAttack(name, outcome_of(server, recovered), recovered, promised)


def verb_confusion(target: Target) -> Iterable[ActiveAttack]:
    """Send the signed request of a secure sum as one for a vector by itself."""
    name = "a secure sum's request sent as another verb"
    if not target.secure:
        return [not_masked(name)]
    server = target.server("verbs", 1)
    answered = [
        verb for verb in ("train.experience", "evaluate.trial")
        if _answer(server, verb, request_to_records(target.request(server))) is not None
    ]  # fmt: skip
    return [ActiveAttack(name, outcome_of(server, bool(answered)), bool(answered))]


def exact_counts(target: Target) -> Iterable[ActiveAttack]:
    """Tell from what is published with a noisy sum how many devices were in it."""
    name, strategy, safeguards = "the size of a cohort, from what is published", target.strategy, target.safeguards
    if not isinstance(strategy, SecureMean) or not safeguards.noisy:
        return [
            ActiveAttack(name, "does not apply: there is no secure sum with noise, and who takes part is no secret")
        ]
    sample = safeguards.sample()
    spread = max(2, math.ceil(3 * math.sqrt(sample)))
    sizes, published = (max(3, sample - spread), min(safeguards.population, sample + spread)), []
    for devices in sizes:
        plan, rng = safeguards.plan(target.spec, devices), np.random.default_rng(devices)
        deviation = math.sqrt(plan.variance("gradient", devices))
        parts = {part.name: rng.normal(0.0, deviation, part.size) for part in plan.parts}
        published.append(strategy.published(parts, plan, devices, target.spec))
    few, many = published
    ratio = float(np.var(few.vector.gradient) / np.var(many.vector.gradient))
    error = 4 * math.sqrt(4 / target.spec.dimension)  # four standard errors of the ratio of two variances
    told = few.cohort != many.cohort or few.noise != many.noise or abs(ratio - 1) > error
    said = f"cohorts of {sizes[0]} and {sizes[1]} are published as {few.cohort} and {many.cohort}"
    return [ActiveAttack(name, f"{said}, with noise in the ratio {ratio:.2f}", told)]


def local_without_noise(target: Target) -> Iterable[ActiveAttack]:
    """Ask devices that add all the noise themselves with a plan that has none, and for many answers to one request."""
    name = "a vector by itself, with too little noise"
    if not isinstance(target.strategy, LocalMean):
        return [ActiveAttack(name, "does not apply: devices add no noise to a vector by itself")]
    made, plan = [], replace(target.safeguards.plan(target.spec), minimum=1)
    for words, text in (("no plan", ""), ("a plan without noise", replace(plan, noise_multiplier=0.0).to_json())):
        server = target.server(words.replace(" ", "-"), 1)
        bare = _answer(server, "train.experience", request_to_records(target.request(server, text))) is not None
        made.append(ActiveAttack(f"{name}: {words}", outcome_of(server, bare), bare))
    server = target.server("again", 1)
    records = request_to_records(target.request(server, plan.to_json()))
    answers = 0
    for _ in range(REPEATS):
        server.restart(VICTIM)
        answers += _answer(server, "train.experience", records) is not None
    said = f"{answers} of {REPEATS} answers; {outcome_of(server, answers > 1)}"
    return [*made, ActiveAttack(f"{name}: one request {REPEATS} times", said, answers > 1)]


def replay(target: Target) -> Iterable[ActiveAttack]:
    """Ask for the same exchange again without the victim; the difference of the two sums is its vector."""
    name = "one exchange asked for twice, with the victim and without"
    if not target.secure:
        return [not_masked(name)]
    server = target.server("replay", target.cohort)
    request = target.request(server)
    first = target.round(server, request, range(target.cohort))
    first.open(first.up_to_masked())
    recovered = False
    for number, again in enumerate((request, target.request(server)), start=2):  # the same one, and a new signed one
        for device in range(target.cohort):
            server.restart(device)
        second = target.round(server, again, range(target.cohort), number)
        second = replace(second, devices={p: d for p, d in second.devices.items() if d != VICTIM})
        second.open(second.up_to_masked())
        recovered |= bool(first.transcript.opened_sums() and second.transcript.opened_sums())
    return [ActiveAttack(name, outcome_of(server, recovered), recovered)]


def two_requests(target: Target) -> Iterable[ActiveAttack]:
    """Give everybody but the victim a context under which nothing is learned: the sum is the victim's vector."""
    name = "another request for everybody but the victim"
    if not target.secure:
        return [not_masked(name)]
    server = target.server("requests", target.cohort)
    request = target.request(server)
    blinding = resigned(server, request, context=np.full(target.spec.dimension, SATURATED, np.float32))
    a_round = target.round(server, request, range(target.cohort))
    for position in a_round.up_to_shares():
        a_round.request = request if position == VICTIM else blinding
        a_round.each(a_round.mask, [position])
    a_round.open(a_round.transcript.masked)
    alone = any(VICTIM in opened.positions for opened in a_round.transcript.opened_sums())
    return [ActiveAttack(name, outcome_of(server, alone), alone)]


def groups_across_cycles(target: Target) -> Iterable[ActiveAttack]:
    """Solve the sums of all cycles for what each device sends on average."""
    name, strategy, config = "sums over other devices in every cycle", target.strategy, target.config
    if not isinstance(strategy, SecureMean):
        return [not_masked(name)]
    if target.safeguards.noisy:
        return [ActiveAttack(name, "does not apply: noise covers what all sums of the run say together")]
    devices, rows = config.clients, list[NDArray[np.float64]]()
    for cycle in range(1, config.cycles + 1):
        for exchange in range(1, config.strategy.exchanges + 1):
            for group in strategy.groups(strategy.draw(list(range(devices)), cycle, exchange)):
                rows.append(np.isin(np.arange(devices), group).astype(np.float64))
    known = determined(np.array(rows))
    same = config.strategy.fraction_train >= 1 and config.strategy.exchanges == 1
    said = f"after {config.cycles} cycles, {known} of {devices} devices' mean vectors follow from {len(rows)} sums"
    return [ActiveAttack(name, said, known > 0, promised=same)]


def determined(sums: NDArray[np.float64]) -> int:
    """Return how many unknowns a system of sums determines; `sums` has shape (sums, unknowns)."""
    _, singular, rows = np.linalg.svd(sums, full_matrices=False)
    basis = rows[singular > 1e-9 * max(1.0, float(singular.max(initial=0.0)))]
    return int((np.square(basis).sum(axis=0) > 1 - 1e-6).sum())


def _answer(server: HostileServer, verb: str, records: RecordDict) -> RecordDict | None:
    try:
        return server.send(VICTIM, verb, records)
    except FedoelError:
        return None


ATTACKS: Sequence[Callable[[Target], Iterable[ActiveAttack]]] = (
    two_sets_of_survivors, phantom_cohort, verb_confusion, exact_counts, local_without_noise, replay,
    two_requests, hidden_keys, groups_across_cycles,
)  # fmt: skip
