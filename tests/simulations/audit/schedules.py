"""Schedules of a server that cheats, drawn at random, against honest device code; and what counts as a breach."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import combinations
from math import floor, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.client import app as client_app
from fedoel.client.app import Experience
from fedoel.client.device.record import TABLES, DeviceRecord
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, StrategyConfig
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import Counters, ExperienceVector, VectorSpec
from fedoel.protocol.fleet import membership
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.messages import PlayRequest, request_to_records
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.secagg import device, keys
from fedoel.protocol.secagg.graph import Graph, least_threshold
from fedoel.protocol.secagg.keys import AgreementKey, Identity
from fedoel.protocol.secagg.shares import SEALED
from fedoel.protocol.secagg.terms import Terms, to_bitmap
from fedoel.protocol.signing import check_request, digest_of, sign_terms
from fedoel.simulations.audit import hostile
from fedoel.simulations.audit.hostile import MEMBERS, SERIAL, HostileRound, HostileServer, resigned, terms_of

DEVICES = 5
LEAST_COHORT = 4
COLLUDING = 1 / 3
LEAST_NOISE = 1.0
SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("frozen-lake",), 2, 5.0, 20.0)
CONFIG = RunConfig(
    clients=DEVICES, games=GamesConfig(families="frozen-lake size=3 turns=4", per_client=1),
    policy=PolicyConfig(backend="tactics"), strategy=StrategyConfig(name="secure-mean"),
)  # fmt: skip
OTHER_CONFIG = replace(CONFIG, games=replace(CONFIG.games, per_client=2))
IDENTITIES = [Identity(Ed25519PrivateKey.generate()) for _ in range(DEVICES)]
HIDING = 54, 18  # a cohort, and the neighbours and threshold that its terms may have: a third of them
ACCOMPLICES = [Identity(Ed25519PrivateKey.generate()) for _ in range(HIDING[1])]
Variable = tuple[int, str, int]
"""One vector: its device, the run, and the cycle whose games it is of."""


@cache
def database_of(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.row_factory = sqlite3.Row
    database.executescript(TABLES)
    return database


class RecordInMemory(DeviceRecord):
    """A device's record, with its own statements and checks, in a database that no disk has to wait for.

    It is empty at first; the database is that of the schedule before.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database = database_of(path)
        for table in ("rounds", "shared", "sharings", "contributions", "survivors", "refused", "refusals"):
            self._database.execute(f"DELETE FROM {table}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield self._database


@dataclass(frozen=True)
class Played:
    """What a device has played for, and under which configuration."""

    config: RunConfig
    device: int
    secret: int
    request: PlayRequest


@contextmanager
def cheap_devices(played: list[Played]) -> Iterator[None]:
    """Let devices make up their vectors in place of playing, and compute what is pure once for all of them."""

    def experience_of(config: RunConfig, request: PlayRequest, client: int, *others: Any, **named: Any) -> Experience:
        secret = named.get("secret") or others[-1]
        played.append(Played(config, client, secret, request))
        return Experience(vector_of(secret, request.cycle, blind=request.context is not None))

    def write(path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)  # some file systems force a file to the disk that is written over
        path.write_bytes(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_app, "experience_of", experience_of)
        patch.setattr(client_app, "encoder_of", lambda *_: None)
        patch.setattr(membership, "write_whole", write)
        patch.setattr(hostile, "read_members", lru_cache(membership.read_members))
        patch.setattr(membership, "read_members", lru_cache(membership.read_members))
        patch.setattr(Terms, "to_json", lru_cache(64)(Terms.to_json))
        patch.setattr(keys.AgreementKey, "agree", agreement())
        checked = lru_cache(4096)(keys.check_signature)
        for module in (keys, device):
            patch.setattr(module, "check_signature", checked)
        yield


def agreement() -> Callable[[AgreementKey, bytes, str, Terms], bytes]:
    """Return `AgreementKey.agree`, which computes the key of two devices once and not on either side."""
    known: dict[tuple[str, bytes, bytes, bytes], bytes] = {}
    original = AgreementKey.agree

    def agree(self: AgreementKey, public: bytes, purpose: str, terms: Terms) -> bytes:
        first, second = sorted((self.public, public))
        pair = (purpose, terms.digest, first, second)
        if pair not in known:
            known[pair] = original(self, public, purpose, terms)
        return known[pair]

    return agree


def vector_of(secret: int, cycle: int, blind: bool = False) -> ExperienceVector:
    """Return a device's vector, which its secret and the cycle determine; zeros under a context that blinds it."""
    gradient = np.random.default_rng([secret % 2**64, cycle]).uniform(-1, 1, 4).astype(np.float32)
    gradient *= not blind
    return ExperienceVector(
        SPEC, gradient, np.zeros(4, np.float32), Counters(np.zeros(SPEC.counters_shape, np.float32))
    )


@dataclass
class Schedule:
    """One random schedule: the fleet's settings, and everything that the server does, follow from the seed."""

    seed: int
    folder: Path
    played: list[Played]
    rounds: list[HostileRound] = field(default_factory=list)
    requests: list[PlayRequest] = field(default_factory=list)
    in_plain: list[int] = field(default_factory=list)
    asked: dict[tuple[int, int], PlayRequest] = field(default_factory=dict)  # by round and position, in masked sums
    unsigned_rounds: list[HostileRound] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.wild = self.rng.choice((0.0, 0.0, 0.03, 0.1))  # chance that a step differs from an honest server's
        self.again = self.rng.random() < 0.3  # whether it asks for the same vectors again and again
        self.noisy, self.knows = self.rng.random() < 0.3, self.rng.random() < 0.4
        known = " ".join(identity.public.hex() for identity in IDENTITIES) if self.knows else ""
        trust = Trust(COLLUDING, "masked", LEAST_COHORT, least_noise=LEAST_NOISE if self.noisy else 0.0, known=known)
        for number in range(DEVICES):  # the folder is that of the schedule before
            for name in (SERIAL, MEMBERS):
                (self.folder / str(number) / name).unlink(missing_ok=True)
        self.server = HostileServer(CONFIG, trust, DEVICES, self.folder, RecordInMemory, IDENTITIES)
        self.more = random.Random(f"{self.seed} more")  # of moves that came later: the others stay as they were
        self.replays = self.more.random() < 0.12  # whether requests come in another order than they were signed in
        self.changed = self.more.random() < 0.1  # whether a run of Flower brings another configuration
        if self.changed:
            self.server.bring(OTHER_CONFIG, self.more.choice((1, 1, 2)))
        self.newest = random.Random(f"{self.seed} newest")  # of moves that came later still
        self.blinds = self.newest.random() < 0.1  # whether all but one device are given a context that blinds them
        self.hides = self.newest.random() < 0.1  # whether each device is shown the keys of some honest ones only
        self.alone = not self.knows and self.newest.random() < 0.05  # whether a device is shown no honest one's
        self.diluted = self.noisy and self.knows and self.newest.random() < 0.3  # whether strangers add no noise
        self.forges = self.newest.random() < 0.05  # whether terms come with signatures of others
        self.lists = [self.server.signed_list, self.server.sign_list(ACCOMPLICES)]

    def odd(self) -> bool:
        return self.rng.random() < self.wild

    def run(self) -> None:
        """Run one to three rounds, one after the other or interleaved, with requests for plain vectors between them."""
        count = 3 if self.again else self.rng.choice((1, 1, 1, 2))
        waiting = [self.round() for _ in range(max(count, 2) if self.replays else count)]
        waiting += [self.round_alone()] * self.alone + [self.diluted_round()] * self.diluted
        mixed = self.rng.random() < 0.4
        while waiting:
            chosen = self.rng.randrange(len(waiting)) if mixed else 0
            if next(waiting[chosen], "over") == "over":
                del waiting[chosen]
            if self.requests and self.odd():
                self.ask_in_plain()

    def ask_in_plain(self) -> None:
        """Send a signed request as that of a vector by itself: as it was, or with a plan of little noise or none."""
        request, action = self.rng.choice(self.requests), self.rng.choice(("train.experience", "evaluate.trial"))
        if self.rng.random() < 0.5:
            plan = PrivacyPlan.make((Part("gradient", 4, 5.0, 1.0),), 1, 1, self.rng.choice((0.0, 0.01)))
            request = resigned(self.server, request, plan=plan.to_json())
        with suppress(FedoelError):
            self.server.send(number := self.rng.randrange(DEVICES), action, request_to_records(request))
            self.in_plain.append(number)

    def request(self) -> PlayRequest:
        """Return the request of a round: out of order, or signed for what was brought, where the schedule does that."""
        if self.replays:  # of a cycle of its own, so that the device would play for it
            request = self.server.request(SPEC, {}, 1 + len(self.requests))
            serial = max(0, request.serial + self.more.choice((0, 3, -3)))
            self.requests.append(request := resigned(self.server, request, serial=serial))
        else:
            request = self.usual_request()
        if self.changed and self.more.random() < 0.5:
            return resigned(self.server, request, config=OTHER_CONFIG.digest)
        return request

    def usual_request(self) -> PlayRequest:
        """Return a new request, or one of before; or one that was changed, or signed for another configuration."""
        rng, server = self.rng, self.server
        if self.requests and rng.random() < 0.5:
            return rng.choice(self.requests)
        request = server.request(SPEC, {}, 1 if self.again else rng.choice((1, 1, 2)), rng.choice((1, 1, 2)))
        self.requests.append(request)
        if self.odd():
            other = replace(request, config="0123456789abcdef")
            return rng.choice((other, resigned(server, other), replace(request, cycle=3)))
        return request

    def hostile_round(self) -> HostileRound | None:
        """Draw a round: who is in it, in which places, and its terms."""
        rng = self.rng
        devices = rng.sample(range(DEVICES), rng.choice((4, 5, 5) if self.again else (3, 4, 5, 5)))
        accomplices, nobody = 0 if self.again else rng.choice((0, 0, 1, 2, 3)), rng.choice((0,) * 8 + (1, 2))
        # Of a device that knows nobody, the promise is made as long as no more members collude than its owner assumes.
        while not self.knows and accomplices > floor(COLLUDING * (len(devices) + accomplices + nobody)):
            accomplices -= 1
        places = rng.sample(range(cohort := len(devices) + accomplices + nobody), len(devices) + accomplices)
        neighbours = cohort - 1 if rng.random() < 0.9 else rng.randint(2, max(2, cohort - 1))
        threshold = (
            least_threshold(cohort, neighbours, COLLUDING) if rng.random() < 0.85 else rng.randint(2, neighbours)
        )
        minimum = (
            rng.randint(LEAST_COHORT, max(LEAST_COHORT, cohort - 1))
            if rng.random() < 0.8
            else rng.randint(2, LEAST_COHORT)
        )
        noise = rng.choice((0.0, 0.5, 1.0, 1.1, 1.5)) if self.noisy or self.odd() else 0.0
        request = self.request()
        number = 1 + len(self.rounds) if rng.random() < 0.85 else rng.randint(1, 1 + len(self.rounds))
        with suppress(FedoelError):
            least = rng.randint(2, cohort) if self.odd() else minimum
            plan = PrivacyPlan.make((Part("gradient", 4, 5.0, 1.0),), max(least, cohort), least, noise)
            terms = terms_of(
                request,
                plan,
                cohort,
                Graph(neighbours, threshold),
                number,
                "ab" if self.again else rng.choice(("ab", "cd")),
            )
            terms = replace(terms, minimum=minimum)
            if rng.random() < 0.15:  # says that it is for another exchange
                subject = terms.subject.rpartition(" ")[0]
                terms = replace(terms, subject=f"{subject} {rng.choice((1, 2, 7, 8))}.{rng.choice((1, 2))}")
            stranger = rng.random() < 0.2  # accomplices that no list of members names
            own = {p: None if stranger else ACCOMPLICES[i] for i, p in enumerate(places[len(devices) :])}
            here = dict(zip(places, devices, strict=False))
            return HostileRound(self.server, terms, plan, request, here, own, rng.choice((1, 1, 1, 2)))
        return None

    def round(self) -> Iterator[None]:
        """Run a round, phase by phase."""
        if (a_round := self.hostile_round()) is None:
            return
        self.rounds.append(a_round)
        rng, transcript = self.rng, a_round.transcript
        a_round.each(self.keys_of(a_round), self.some(a_round.devices))
        yield
        a_round.each(self.shares_of(a_round), self.some(transcript.adverts))
        yield
        a_round.each(self.mask_of(a_round), self.some(transcript.sealed))
        if rng.random() < 0.1:
            self.server.restart(rng.randrange(DEVICES), a_round.flower_run)
        yield
        stories = self.stories(a_round)
        told = stories if rng.random() < 0.5 else [rng.choice(stories)]  # to different devices
        heard = {position: rng.choice(told) for position in transcript.masked}
        a_round.each(lambda position: a_round.confirm(position, heard[position]), self.some(heard))
        yield
        a_round.each(lambda position: self.unmask(a_round, position, heard[position]), self.some(a_round.confirmed))
        yield
        if rng.random() < 0.5:  # the same devices, with another story
            other = stories[-1]
            a_round.each(lambda position: a_round.confirm(position, other), list(transcript.masked))
            a_round.each(lambda position: a_round.unmask(position, other), list(transcript.masked))

    def round_alone(self) -> Iterator[None]:
        """Run a round with one honest device, of whose cohort the server shows its own members only."""
        cohort, own = HIDING
        least = self.newest.choice((own + 1, least_threshold(cohort, cohort - 1, COLLUDING) + 1))
        noise = self.newest.choice((0.0, 1.5)) if self.noisy else 0.0
        here = {0: self.newest.randrange(DEVICES)}
        return self.to_the_end(here, own, cohort, Graph(own, own), least, noise)

    def diluted_round(self) -> Iterator[None]:
        """Run a round in which as many strangers are as may be, and the members make the least noise together."""
        honest, own = DEVICES - 1, 2
        cohort = honest + own
        graph = Graph(cohort - 1, least_threshold(cohort, cohort - 1, COLLUDING))
        here = dict(enumerate(self.newest.sample(range(DEVICES), honest)))
        return self.to_the_end(here, own, cohort, graph, cohort - 1, LEAST_NOISE)

    def to_the_end(
        self, here: dict[int, int], own: int, cohort: int, graph: Graph, least: int, noise: float
    ) -> Iterator[None]:
        """Run a round with honest devices at the first places and the server's own behind them, as terms have it."""
        request = self.request()
        plan = PrivacyPlan.make((Part("gradient", 4, 5.0, 1.0),), cohort, least, noise)
        terms = terms_of(request, plan, cohort, graph, 1 + len(self.rounds), "ef")
        behind = dict(enumerate(ACCOMPLICES[:own], start=len(here)))
        a_round = HostileRound(self.server, terms, plan, request, here, behind)
        self.rounds.append(a_round)
        a_round.each(a_round.keys)
        yield
        a_round.each(lambda p: a_round.shares(p, None, self.lists[1]), list(a_round.transcript.adverts))
        a_round.each(self.mask_of(a_round), list(a_round.transcript.sealed))
        yield
        a_round.open({*a_round.transcript.masked, *a_round.accomplices})

    def keys_of(self, a_round: HostileRound) -> Callable[[int], None]:
        """Return the first step, with terms that the fleet's owner has signed, or who carries the messages."""
        forged = None
        if self.forges and self.newest.random() < 0.7:
            text = replace(a_round.terms, number=a_round.terms.number + 1).to_json().encode()
            key = self.newest.choice((self.server.key, Ed25519PrivateKey.generate()))
            forged = self.newest.choice((sign_terms(key, text), b"", bytes(64)))
            self.unsigned_rounds.append(a_round)
        return lambda position: a_round.keys(position, forged)

    def some(self, positions: Iterable[int]) -> list[int]:
        """Return positions in any order, without some that are not asked."""
        chosen = self.rng.sample(listed := sorted(positions), len(listed))
        return [position for position in chosen if not self.odd()]

    def shares_of(self, a_round: HostileRound) -> Callable[[int], None]:
        def shares(position: int) -> None:
            rng, adverts = self.rng, list(a_round.adverts_for(position).values())
            rng.shuffle(adverts)
            if adverts and self.odd():
                others = [a.to_bytes() for other in self.rounds for a in other.transcript.adverts.values()]
                adverts = rng.choice((adverts[1:], [*adverts, adverts[0]], [*adverts[1:], rng.choice(others)]))
            if self.hides:
                hidden = {a.to_bytes() for a in a_round.transcript.adverts.values() if self.newest.random() < 0.3}
                adverts = [advert for advert in adverts if advert not in hidden]
            signed_list = self.lists[0 if self.odd() else bool(a_round.accomplices)]
            a_round.shares(position, adverts, signed_list)

        return shares

    def mask_of(self, a_round: HostileRound) -> Callable[[int], None]:
        def mask(position: int) -> None:
            rng, transcript = self.rng, a_round.transcript
            shared, sealed = {*transcript.sealed, *transcript.accomplices}, a_round.sealed_for(position)
            if self.odd():
                shared = {p for p in range(a_round.terms.cohort) if rng.random() < 0.7}
            if len(sealed) > 1 and self.odd():
                one, other = rng.sample(sorted(sealed), 2)
                sealed = rng.choice((
                    {**sealed, one: sealed[other], other: sealed[one]}, {**sealed, one: bytes(SEALED)},
                    {p: part for p, part in sealed.items() if p != one},
                ))  # fmt: skip
            own_request = a_round.request
            if victim is not None and position != victim:
                a_round.request = resigned(self.server, own_request, context=np.full(4, 1e4, np.float32))
            self.asked[id(a_round), position] = a_round.request
            try:
                a_round.mask(position, shared, sealed)
            finally:
                a_round.request = own_request

        victim = self.newest.choice(sorted(a_round.devices)) if self.blinds else None
        return mask

    def stories(self, a_round: HostileRound) -> list[bytes]:
        """Return the sets of survivors that devices hear: mostly one or two, about one victim."""
        rng, masked = self.rng, sorted(a_round.transcript.masked)
        everybody = {*masked, *a_round.transcript.accomplices}
        sets = [everybody]
        if masked and rng.random() < 0.5:
            victim = rng.choice(masked)
            few = set(rng.sample(masked, min(len(masked), rng.randint(1, 4)))) | {victim} | everybody - set(masked)
            sets += rng.sample(
                (everybody - {victim}, everybody - {victim}, few, {p for p in everybody if rng.random() < 0.7}), 1
            )
        if self.odd():
            sets.append({p for p in range(a_round.terms.cohort) if rng.random() < 0.8})
        return [to_bitmap(positions, a_round.terms) for positions in sets]

    def unmask(self, a_round: HostileRound, position: int, survivors: bytes) -> None:
        signatures = a_round.signatures_for(position, survivors)
        if signatures and self.odd():
            signatures = self.rng.choice((signatures[:66], signatures[:-1] + b"\0", signatures + signatures[:66]))
        a_round.unmask(position, survivors, signatures)

    # What counts as a breach

    def breaches(self) -> list[str]:
        """Return everything that the server should not have got; see `test_no_schedule_...`."""
        found = [f"device {number} has sent its vector by itself" for number in self.in_plain]
        found += [
            "a device is in a round whose terms are not signed" for r in self.unsigned_rounds if r.transcript.adverts
        ]
        rows: list[frozenset[Variable]] = []
        most_accomplices = 0
        for a_round in self.rounds:
            listed = 0 if None in a_round.accomplices.values() else len(a_round.accomplices)
            for opened in a_round.transcript.opened_sums():
                members = len(opened.positions) + listed
                counted = len(opened.positions) if self.knows else members
                requests = {digest_of(self.asked[id(a_round), position]) for position in opened.positions}
                if len(requests) > 1:
                    found.append(f"a sum of answers to {len(requests)} requests")
                if counted < LEAST_COHORT or len(opened.positions) < 2:
                    found.append(f"a sum over {len(opened.positions)} honest devices and {listed} accomplices")
                noise = a_round.plan.noise_multiplier * sqrt(counted / a_round.plan.minimum)
                if self.noisy and noise < LEAST_NOISE - 1e-9:
                    found.append(f"a sum with noise {noise:.3g}")
                if not a_round.plan.noise_multiplier:
                    rows.append(self.variables(a_round, opened.positions))
                    most_accomplices = max(most_accomplices, 0 if self.knows else listed)
                    self.check_cells(a_round, opened.positions, opened.cells)
        found += [
            f"the difference of sums over {support}" for support in combined(rows, LEAST_COHORT - most_accomplices)
        ]
        return found + list(self.unsigned())

    def variables(self, a_round: HostileRound, positions: Iterable[int]) -> frozenset[Variable]:
        run, cycle = a_round.terms.run, a_round.request.cycle
        return frozenset((a_round.devices[position], run, cycle) for position in positions)

    def check_cells(self, a_round: HostileRound, positions: Iterable[int], cells: Any) -> None:
        """Check that what the server has computed is what these devices have sent, and nothing else."""
        plan, run = a_round.plan, a_round.terms.run
        vectors = [
            vector_of(
                self.server.runtimes[a_round.devices[position]].game_secret(0, run) or 0, a_round.request.cycle,
                blind=self.asked[id(a_round), position].context is not None,
            )
            for position in positions
        ]  # fmt: skip
        expected = sum(plan.quantised(vector.parts()) for vector in vectors)
        assert (np.asarray(expected).astype(cells.dtype) == cells).all(), f"seed {self.seed}: the attack is wrong"

    def unsigned(self) -> Iterator[str]:
        """Yield the requests that a device has played for though the fleet's owner has not signed them, or no more."""
        latest: dict[int, int] = {}
        for played in self.played:
            request, fleet_key = played.request, self.server.key.public_key().public_bytes_raw()
            try:
                check_request(fleet_key, request)
            except FedoelError:
                yield "a device has played for a request that was not signed"
            if request.config != played.config.digest:
                yield "a device has played for another configuration than the signed one"
            if request.serial < latest.get(played.device, 0):
                yield "a device has played for a request that is older than the last"
            latest[played.device] = max(latest.get(played.device, 0), request.serial)


def combined(rows: list[frozenset[Variable]], least: int) -> Iterator[list[Variable]]:
    """Yield sets of less than `least` vectors of which the server can compute a combination from sums over `rows`."""
    variables = sorted(frozenset[Variable]().union(*rows))
    if sum(map(len, rows)) == len(variables):
        return  # no vector is in two sums
    matrix = np.array([[variable in row for variable in variables] for row in rows], dtype=np.float64)
    rank = np.linalg.matrix_rank(matrix)
    for size in range(1, least):
        for some in combinations(range(len(variables)), size):
            # Those combinations that are zero outside of `some` are what the rank of the other columns lacks.
            if np.linalg.matrix_rank(np.delete(matrix, some, axis=1)) < rank:
                yield [variables[index] for index in some]
                return


def run_schedules(seeds: Iterable[int], folder: Path) -> Iterator[Schedule]:
    """Run the schedules of seeds, one after the other."""
    played: list[Played] = []
    with cheap_devices(played):
        for seed in seeds:
            played.clear()
            schedule = Schedule(seed, folder, played)
            schedule.run()
            yield schedule
