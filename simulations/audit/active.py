"""Attacks of a server that cheats on honest devices, with the terms of a run's configuration.

The server here has every key of the fleet. Devices run their own code, with what the fleet of this run would propose
for `[trust]` (`fedoel.server.operate.proposal`), and play small games without a language model. A cohort has at most
`LARGEST` devices, so that an attack costs seconds; minimum, graph, threshold and noise are those that the run makes for
a cohort of this size. What the server gets is computed from what it has received
(`fedoel.simulations.audit.adversary`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from numpy.typing import NDArray

from ...codecs.encoder import load_encoder
from ...protocol.config import RunConfig
from ...protocol.errors import FedoelError
from ...protocol.experience import VectorSpec
from ...protocol.fleet.trust import Trust
from ...protocol.messages import PlayRequest, request_to_records
from ...protocol.play import specs_from_text
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.graph import Graph, choose_graph
from ...protocol.secagg.keys import Identity
from ...protocol.secagg.terms import to_bitmap
from ...protocol.settings import from_table
from ...protocol.versions import Adapter
from ...server.operate.proposal import proposal
from ...server.safeguards import RunSafeguards
from ...strategies.experience import ExperienceStrategy
from ...strategies.mean import LocalMean
from ...strategies.registry import build_strategy
from ...strategies.secure_groups import SecureGroups
from ...strategies.secure_mean import SecureMean
from ..grid import server_identity
from .hostile import HostileRound, HostileServer, everybody, resigned, terms_of

LARGEST = 9  # devices of an attacked cohort
GAMES = "frozen-lake size=3 turns=4"
HORIZON = 4
VICTIM = 0
REPEATS = 20  # of one request
SATURATED = 1e4  # weights of a context under which a policy is sure of one command everywhere, and gradients are zero


@dataclass(frozen=True, slots=True)
class ActiveAttack:
    """The result of one attack.

    Parameters
    ----------
    attack
        What the server does.
    outcome
        What it gets, or why devices refuse.
    recovered
        Whether it gets more than the sums that it is meant to get.
    promised
        Whether the run promises that it does not.
    """

    attack: str
    outcome: str
    recovered: bool = False
    promised: bool = True

    @property
    def broken(self) -> bool:
        """Whether a promise is broken."""
        return self.recovered and self.promised


@dataclass(frozen=True)
class Target:
    """The run that is attacked.

    Parameters
    ----------
    config
        Its configuration.
    folder
        Folder for the devices' files.
    settings
        What every device's owner allows; by default what the fleet would propose.
    """

    config: RunConfig
    folder: Path
    settings: Trust | None = None

    @cached_property
    def small(self) -> RunConfig:
        """The configuration with the same protections, for small games without a language model."""
        games = replace(self.config.games, families=GAMES, partition="iid", per_client=1, amounts="equal")
        return replace(
            self.config, games=games, policy=replace(self.config.policy, backend="tactics"),
            codec=replace(self.config.codec, name="tactics"), out=str(self.folder / "run"),
        )  # fmt: skip

    @cached_property
    def trust(self) -> Trust:
        """What the devices' owners allow."""
        return from_table(Trust, proposal(self.small)) if self.settings is None else self.settings

    @cached_property
    def safeguards(self) -> RunSafeguards:
        return RunSafeguards(self.small)

    @cached_property
    def strategy(self) -> ExperienceStrategy:
        """The run's strategy, on a server that has nothing but safeguards."""
        server = SimpleNamespace(safeguards=self.safeguards)
        return build_strategy(self.config.strategy, server, self.config.seed)

    @property
    def secure(self) -> bool:
        """Whether vectors are masked."""
        return isinstance(self.strategy, SecureMean)

    @cached_property
    def spec(self) -> VectorSpec:
        """Specification of the devices' vectors."""
        encoder, codec = load_encoder("tactics"), self.small.codec
        families = tuple(spec.family for spec in specs_from_text(GAMES))
        return VectorSpec(
            encoder.name, encoder.dimension, encoder.vocabulary, "audit", families, HORIZON, codec.clipping_norm,
            codec.fisher_norm,
        )  # fmt: skip

    @property
    def adapter(self) -> Adapter:
        return {"weights": np.zeros(self.spec.dimension, np.float32)}

    @property
    def size(self) -> int:
        """Devices that the run asks for a sum, on average."""
        strategy = self.strategy
        return strategy.group_size if isinstance(strategy, SecureGroups) else self.safeguards.sample()

    @property
    def cohort(self) -> int:
        """Devices of an attacked cohort."""
        return max(3, min(self.size, LARGEST))

    @cached_property
    def plan(self) -> PrivacyPlan:
        """The plan of a secure sum over the attacked cohort."""
        if isinstance(self.strategy, SecureGroups):
            return self.strategy.plan(self.spec)
        return self.safeguards.plan(self.spec, self.cohort)

    @cached_property
    def graph(self) -> Graph:
        privacy = self.config.privacy
        return choose_graph(self.cohort, privacy.colluding, privacy.max_dropout)

    def server(self, name: str, devices: int, trust: Trust | None = None) -> HostileServer:
        """Return a server with new devices."""
        config = replace(self.small, clients=devices)
        return HostileServer(config, trust or self.trust, devices, self.folder / name)

    def request(self, server: HostileServer, plan: str = "", cycle: int = 1) -> PlayRequest:
        return server.request(self.spec, self.adapter, cycle, plan=plan)

    def round(
        self, server: HostileServer, request: PlayRequest, devices: Sequence[int], number: int = 1, threshold: int = 0
    ) -> HostileRound:
        """Return a round over devices with the run's terms, or another threshold."""
        graph = replace(self.graph, threshold=threshold or self.graph.threshold)
        terms = terms_of(request, self.plan, self.cohort, graph, number)
        return HostileRound(server, terms, self.plan, request, everybody(devices))


def attack(target: Target) -> list[ActiveAttack]:
    """Make every attack once."""
    with server_identity():
        return [made for one in ATTACKS for made in one(target)]


def two_sets_of_survivors(target: Target) -> Iterable[ActiveAttack]:
    """Tell half of the devices that the victim has survived, and the others that it has dropped out."""
    name = "two sets of survivors"
    if not target.secure:
        return [_not_masked(name)]
    made, half = [], max(2, target.graph.neighbours // 2)
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
        made.append(ActiveAttack(f"{name}, with {where}", _said(server, alone), alone))
    return made


def phantom_cohort(target: Target) -> Iterable[ActiveAttack]:
    """Claim a cohort of which nobody but the victim is honest."""
    name = "a cohort that is made up"
    if not target.secure:
        return [_not_masked(name)]
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
        server = target.server(f"known-{known}", 1, replace(target.trust, known=" ".join(keys)))
    if signed:
        server.signed_list = server.sign_list(own)
    a_round = target.round(server, target.request(server), [VICTIM])
    if known is not None:
        a_round = replace(a_round, accomplices=dict(enumerate(own, start=1)))
    a_round.up_to_masked()
    a_round.open({VICTIM, *a_round.accomplices})
    recovered = bool(a_round.transcript.opened_sums())
    promised = not signed or bool(known) or bool(target.trust.known)
    return ActiveAttack(name, _said(server, recovered), recovered, promised)


def verb_confusion(target: Target) -> Iterable[ActiveAttack]:
    """Send the signed request of a secure sum as one for a vector by itself."""
    name = "a secure sum's request sent as another verb"
    if not target.secure:
        return [_not_masked(name)]
    server = target.server("verbs", 1)
    answered = [
        verb for verb in ("train.experience", "evaluate.trial")
        if _answer(server, verb, request_to_records(target.request(server))) is not None
    ]  # fmt: skip
    return [ActiveAttack(name, _said(server, bool(answered)), bool(answered))]


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
        made.append(ActiveAttack(f"{name}: {words}", _said(server, bare), bare))
    server = target.server("again", 1)
    records = request_to_records(target.request(server, plan.to_json()))
    answers = 0
    for _ in range(REPEATS):
        server.restart(VICTIM)
        answers += _answer(server, "train.experience", records) is not None
    said = f"{answers} of {REPEATS} answers; {_said(server, answers > 1)}"
    return [*made, ActiveAttack(f"{name}: one request {REPEATS} times", said, answers > 1)]


def replay(target: Target) -> Iterable[ActiveAttack]:
    """Ask for the same exchange again without the victim; the difference of the two sums is its vector."""
    name = "one exchange asked for twice, with the victim and without"
    if not target.secure:
        return [_not_masked(name)]
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
    return [ActiveAttack(name, _said(server, recovered), recovered)]


def two_requests(target: Target) -> Iterable[ActiveAttack]:
    """Give everybody but the victim a context under which nothing is learned: the sum is the victim's vector."""
    name = "another request for everybody but the victim"
    if not target.secure:
        return [_not_masked(name)]
    server = target.server("requests", target.cohort)
    request = target.request(server)
    blinding = resigned(server, request, context=np.full(target.spec.dimension, SATURATED, np.float32))
    a_round = target.round(server, request, range(target.cohort))
    for position in a_round.up_to_shares():
        a_round.request = request if position == VICTIM else blinding
        a_round.each(a_round.mask, [position])
    a_round.open(a_round.transcript.masked)
    alone = any(VICTIM in opened.positions for opened in a_round.transcript.opened_sums())
    return [ActiveAttack(name, _said(server, alone), alone)]


def groups_across_cycles(target: Target) -> Iterable[ActiveAttack]:
    """Solve the sums of all cycles for what each device sends on average."""
    name, strategy, config = "sums over other devices in every cycle", target.strategy, target.config
    if not isinstance(strategy, SecureMean):
        return [_not_masked(name)]
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


def _said(server: HostileServer, recovered: bool) -> str:
    """Say what the server got: a vector, or refusals and which ones."""
    if recovered:
        return "a device's vector was recovered"
    return f"refused with {server.reasons}" if server.refused else "nothing beyond the sums that it may see"


def _not_masked(name: str) -> ActiveAttack:
    return ActiveAttack(name, "does not apply: without a secure sum, the server sees each vector")


ATTACKS: Sequence[Callable[[Target], Iterable[ActiveAttack]]] = (
    two_sets_of_survivors, phantom_cohort, verb_confusion, exact_counts, local_without_noise, replay,
    two_requests, groups_across_cycles,
)  # fmt: skip
