"""The server's half of privacy: one plan for a run, from its configuration, and the ledger that holds it to it.

The ledger is an append-only log of rounds and releases, written before they happen. Each entry is one line of JSON,
flushed and synced to disk. A crash can truncate the last line only. A truncated entry was not acted on, but counts as a
release, so that the accounting stays an upper bound.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError, FedoelError, PrivacyError
from ..protocol.experience import VectorSpec
from ..protocol.fleet.log import LogExtract
from ..protocol.fleet.membership import MEMBERS, RunMode, keys_folder, load_members
from ..protocol.fleet.notice import Notice
from ..protocol.formats import KEY
from ..protocol.formats import LEDGER as LEDGER_FORMAT
from ..protocol.host.files import append_line, make_private_file
from ..protocol.host.lock import in_turn
from ..protocol.privacy.plan import Part, PrivacyPlan
from ..protocol.privacy.published import public_factor
from ..protocol.records.summary import PrivacyPromise
from ..protocol.rollout import stages_of
from ..protocol.secagg.graph import complete_graph
from ..protocol.signing import sign_terms
from ..protocol.trials import is_trial, most_trials, parts_of_trial
from .fleet import newest_log, owner_key
from .log import FleetLog
from .notice import acknowledge, signed_notice

LEDGER = "privacy.jsonl"  # in the run's folder; in a deployment it holds the secret seed of the draw of cohorts
BEGUN, SPENT, OPENED = "round", "spend", "ledger"
DRAW_LOSS = 1e-3  # share of delta that may be lost to draws that are made again, because no cohort was large enough
WIDE = 6.0  # standard deviations of a cohort's size that a plan allows for


@dataclass
class RunSafeguards:
    """Implements `fedoel.strategies.server_side.Safeguards`.

    Parameters
    ----------
    reads
        Whether only numbers are wanted: the ledger is then read as it is, also where nobody may write.
    """

    config: RunConfig
    reads: bool = False

    @cached_property
    def ledger(self) -> Ledger:
        """Where rounds and releases are written down."""
        return Ledger(Path(self.config.out) / LEDGER, self.reads)

    @property
    def mode(self) -> RunMode:
        """Whether the devices of the run are simulated or deployed."""
        return RunMode.of(self.config)

    @property
    def deployed(self) -> bool:
        """Whether its devices are machines of others."""
        return self.mode is RunMode.DEPLOYMENT

    @property
    def members(self) -> Collection[bytes]:
        """Public keys of the fleet's devices; read anew each time, since devices join and leave during a run."""
        return load_members(keys_folder(self.config))[0].identities

    @property
    def signed_members(self) -> bytes:
        """The signed list that devices check; empty in a simulation, whose devices read it from their folder."""
        return (keys_folder(self.config) / MEMBERS).read_bytes() if self.mode is RunMode.DEPLOYMENT else b""

    @property
    def log(self) -> LogExtract | None:
        """The newest part of the fleet's log, with the lists of members that were added during the run."""
        keys = keys_folder(self.config)
        return newest_log(keys, self.fleet_log) if self.mode is RunMode.DEPLOYMENT else None

    @cached_property
    def fleet_log(self) -> FleetLog:
        """The log of what the fleet's owner signs; a simulation has none."""
        return FleetLog(keys_folder(self.config))

    @property
    def notice(self) -> Notice | None:
        """The newest notice to devices; None in a simulation."""
        return signed_notice(keys_folder(self.config), self.fleet_log) if self.mode is RunMode.DEPLOYMENT else None

    def acknowledge(self, notice: Notice, nodes: Collection[int]) -> None:
        """Write down which nodes have acknowledged a notice."""
        acknowledge(keys_folder(self.config), notice.number, nodes)

    @property
    def colluding(self) -> float:
        return self.config.privacy.colluding

    @property
    def max_dropout(self) -> float:
        return self.config.privacy.max_dropout

    @property
    def noisy(self) -> bool:
        return self.config.privacy.epsilon > 0

    @property
    def staged(self) -> bool:
        return len(stages_of(self.config.rollout.stages)) > 1

    @property
    def population(self) -> int:
        """Devices that any release might draw."""
        return self.config.privacy.population or self.config.clients

    def sample(self, spec: VectorSpec | None = None) -> int:
        """Devices that a release draws on average: of vectors of a specification, or of experience."""
        trial = spec is not None and is_trial(spec)
        return self._part(parts_of_trial(self.config) if trial else self.config.strategy.exchanges)

    def _part(self, parts: int) -> int:
        return max(1, round(self.population * self.config.strategy.fraction_train / parts))

    def chance(self, spec: VectorSpec | None = None) -> float:
        """Chance of each device to be drawn for such a release."""
        return self.sample(spec) / self.population

    def enough(self, nodes: int) -> bool:
        """Whether enough of the population is there to draw a cohort from, without a look at any draw."""
        return not self.noisy or nodes >= math.floor(self.population * (1 - self.max_dropout))

    def releasable(self, cohort: int) -> bool:
        """Whether a sum over a drawn cohort of this size can be released."""
        if self.config.privacy.mechanism in ("central", "local"):
            return cohort >= 1
        minimum, bad = self._survivors(cohort), math.floor(cohort * self.colluding)
        return minimum >= 2 and minimum > bad and complete_graph(cohort, self.colluding, self.max_dropout) is not None

    def _survivors(self, cohort: int) -> int:
        """Return how many devices of a cohort must be left for its sum to be opened."""
        return math.floor(cohort * (1 - self.max_dropout))

    @cached_property
    def fewest(self) -> int:
        """Fewest devices that a secure sum of experience can be over.

        With noise or in stages that is said by the cohort that was drawn, here the smallest one that is releasable;
        else by the run's plan.
        """
        cohort = self.sample()
        if self.noisy or self.staged:
            cohort = next(filter(self.releasable, range(1, cohort)), cohort)
        return self._survivors(cohort)

    def chance_of_redraw(self, sample: int) -> float:
        """Return the probability that a draw of `sample` devices on average is not releasable and is made again.

        Sizes far above the average are left out: cohorts are releasable from some size on.
        """
        population, chance = self.population, sample / self.population
        if chance >= 1:
            return 0.0
        sizes = range(min(population, sample + math.ceil(2 * WIDE * math.sqrt(sample))) + 1)
        return math.fsum(_binomial(size, population, chance) for size in sizes if not self.releasable(size))

    @property
    def secret(self) -> int:
        """Secret seed of the draw of cohorts, from the ledger; 0 in a simulation, whose draws repeat."""
        return self.ledger.secret if self.mode is RunMode.DEPLOYMENT else 0

    @property
    def releases(self) -> int:
        """Releases that the run is going to make at most, of experience and of trials."""
        return self.config.cycles * (self.config.strategy.exchanges + most_trials(self.config))

    @cached_property
    def noise_multiplier(self) -> float:
        """Noise of every release, in joint clipping norms; 0 without a budget."""
        if not self.noisy:
            return 0.0
        from .accounting import multiplier_for

        privacy = self.config.privacy
        return multiplier_for(privacy.epsilon, self.accounted_delta, self.accounted, self.population, self.releases)

    @cached_property
    def accounted(self) -> int:
        """Devices of a release that the accountant may take for drawn at random: who sends its noise is seen.

        Releases of experience and of trials draw different numbers of devices; all are accounted with the larger one.

        A draw that is not releasable is made again, so that cohorts are drawn on the condition of a size. Compared with
        Poisson sampling, that adds at most the probability of such a draw to epsilon and to delta of each release.
        Where all of them together may be more than `DRAW_LOSS` of delta, sampling counts for nothing: without
        amplification the accountant takes every cohort for known, and so its size may be anything.
        """
        if self.config.privacy.mechanism == "local":
            return self.population
        samples = {self.sample(), *([self._part(parts_of_trial(self.config))] if most_trials(self.config) else [])}
        lost = self.releases * max(map(self.chance_of_redraw, samples))
        return max(samples) if lost <= DRAW_LOSS * self.config.privacy.delta else self.population

    @property
    def accounted_delta(self) -> float:
        """Delta for the accountant, which leaves out what draws that are made again may cost."""
        delta = self.config.privacy.delta
        return delta * (1 - DRAW_LOSS) if self.accounted < self.population else delta

    def plan(self, spec: VectorSpec, cohort: int | None = None) -> PrivacyPlan:
        """Return the plan of a release: of a cohort that was drawn, or by default of any that may be drawn.

        The noise is the same. What a device adds follows from the size of its cohort, so that the fewest survivors of
        whatever cohort was drawn make the whole noise, and no cohort is too small for it.

        Raises
        ------
        PrivacyError
            If the cohort is too small to be one.
        """
        share = 0.0 if is_trial(spec) else self.config.privacy.fisher_share
        sample, chance = (self.sample(spec), self.chance(spec)) if cohort is None else (cohort, 1.0)
        weights = {"gradient": math.sqrt(1 - share), "fisher": math.sqrt(share)}
        parts = tuple(Part(n, spec.sizes[n], spec.norms[n], weight) for n, weight in weights.items() if weight)
        spread = WIDE * math.sqrt(sample * (1 - chance)) if self.noisy else 1.0
        largest = min(self.population, math.ceil(sample + spread))
        minimum = self._survivors(sample)
        if minimum < 2 or largest < 3:
            remedy = "raise trial.share" if is_trial(spec) else "lower strategy.exchanges"
            more = "enrol more devices" if self.mode is RunMode.DEPLOYMENT else "raise clients"
            plain = "" if self.noisy else ", or, where the server may see every vector, set strategy.name to mean"
            drawn = f"{sample} {'device' if sample == 1 else 'devices'} a release"
            raise PrivacyError(
                f"{drawn}, of which {self.max_dropout:.0%} may drop out, are too few to hide in: {more}, or raise "
                f"strategy.fraction-train, or {remedy}{plain}"
            )
        shared = self.config.privacy.mechanism in ("none", "distributed")
        return PrivacyPlan.make(parts, largest, minimum if shared else 1, self.noise_multiplier)

    def public_factor(self, spec: VectorSpec) -> float:
        """Variance of a published sum's noise, as a multiple of that of the fewest survivors of any cohort drawn."""
        sample, chance = self.sample(spec), self.chance(spec)
        spread = math.ceil(WIDE * math.sqrt(sample * (1 - chance)))
        sizes = range(max(1, sample - spread), min(self.population, sample + spread) + 1)
        return public_factor(filter(self.releasable, sizes), self.max_dropout)

    def begin_round(self) -> tuple[str, int]:
        """Number a round that was never used, not even before a crash."""
        return self.ledger.run, self.ledger.begin()

    def sign_terms(self, text: bytes) -> bytes:
        """Sign a round's terms with the fleet's key."""
        return sign_terms(owner_key(keys_folder(self.config)), text)

    def check_budget(self) -> None:
        """Refuse another release that would exceed the budget."""
        if self.noisy and self.ledger.spent() >= self.releases:
            raise PrivacyError(
                f"all {self.releases} releases that epsilon {self.config.privacy.epsilon:g} pays for have been made"
            )

    def spend(self, cycle: int) -> None:
        """Write a release down before it happens."""
        privacy = self.config.privacy
        with self.ledger.held():
            self.check_budget()
            self.ledger.spend(
                cycle, noise_multiplier=self.noise_multiplier, sample=self.accounted, population=self.population,
                delta=privacy.delta,
            )  # fmt: skip

    def spent(self, cycle: int | None = None) -> float:
        """Epsilon of what was released up to a cycle, against those who do not know who took part; 0 without noise."""
        releases = self.ledger.spent(cycle) if self.noisy else 0
        if not releases:
            return 0.0
        from .accounting import Release, epsilon_of

        release = Release(self.noise_multiplier, self.accounted, self.population)
        return epsilon_of(release, releases, self.accounted_delta)

    def describe(self, secure: bool) -> PrivacyPromise:
        """Say what a run promises, for its summary.

        Parameters
        ----------
        secure
            Whether the server sees sums only.
        """
        privacy = self.config.privacy
        if not self.noisy:
            return PrivacyPromise(mechanism=privacy.mechanism, secure_sum=secure)
        return PrivacyPromise(
            mechanism=privacy.mechanism, secure_sum=secure, epsilon=privacy.epsilon, delta=privacy.delta,
            noise_multiplier=self.noise_multiplier, sample=self.accounted, population=self.population,
            releases=self.releases,
        )  # fmt: skip


def _binomial(hits: int, draws: int, chance: float) -> float:
    """Return the probability of so many hits."""
    ways = math.lgamma(draws + 1) - math.lgamma(hits + 1) - math.lgamma(draws - hits + 1)
    return math.exp(ways + hits * math.log(chance) + (draws - hits) * math.log1p(-chance))


class Ledger:
    """The ledger in a file, which is created if it does not exist, unless it is only read.

    `run` is the run's random name, `secret` the seed of cohort sampling that devices do not know, and `rounds` the
    number of rounds begun.

    Raises
    ------
    FedoelError
        If the file cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path, reads: bool = False) -> None:
        self.path, self._size, self._reads = path, -1, reads
        self.run, self.secret, self.rounds, self._cycles = "", 0, 0, list[int]()
        if reads:  # without a lock, which needs a folder that can be written; a line that is being written counts
            self._refresh()
            return
        with self.held():
            if not self._size:
                run, secret = secrets.token_hex(16), secrets.randbits(64)
                self._append({"kind": OPENED, KEY: LEDGER_FORMAT.current, "run": run, "secret": secret})
                self._size = -1
                self._refresh()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing, and read what they have written; raises as the class does."""
        with ExitStack() as stack:
            try:
                stack.enter_context(in_turn(self.path))
            except ConfigError as error:
                raise FedoelError(f"nothing may be released without the privacy ledger: {error}") from error
            self._refresh()
            yield

    def _refresh(self) -> None:
        """Read the entries again if the file is not as this process has left it."""
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
        except OSError as error:
            raise self._unreadable(error) from error
        if size == self._size:
            return
        entries = self._read()
        if entries:
            LEDGER_FORMAT.check(entries[0].get(KEY, 1), f"the privacy ledger {self.path}")
            self.run, self.secret = str(entries[0].get("run", "")), int(entries[0].get("secret", 0))
        self.rounds = sum(entry["kind"] == BEGUN for entry in entries)
        self._cycles = [int(entry.get("cycle", 0)) for entry in entries if entry["kind"] == SPENT]
        self._size = size

    def begin(self) -> int:
        """Record a new round, and return its number."""
        with self.held():
            self.rounds += 1
            self._append({"kind": BEGUN, "number": self.rounds})
            return self.rounds

    def spend(self, cycle: int, **details: Any) -> None:
        """Record one release of a cycle, in a `held` block."""
        self._cycles.append(cycle)
        self._append({"kind": SPENT, "cycle": cycle, **details})

    def spent(self, cycle: int | None = None) -> int:
        """Return the number of releases up to a cycle, or of all; a truncated entry counts for every cycle."""
        return sum(cycle is None or released_in <= cycle for released_in in self._cycles)

    def _read(self) -> list[Mapping[str, Any]]:
        if not self.path.exists():
            return []
        try:
            if not self._reads:
                with suppress(PermissionError):  # of a ledger that is another user's, which is only read
                    make_private_file(self.path)
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise self._unreadable(error) from error
        return [self._entry(line, last=number == len(lines)) for number, line in enumerate(lines, 1)]

    def _unreadable(self, error: OSError) -> FedoelError:
        return FedoelError(f"the privacy ledger {self.path} cannot be read: {error.strerror}")

    def _entry(self, line: bytes, last: bool) -> Mapping[str, Any]:
        try:
            entry: Mapping[str, Any] = json.loads(line)
            return {"kind": entry["kind"], **entry}
        except (ValueError, KeyError, TypeError) as error:
            if last:
                return {"kind": SPENT}
            raise FedoelError(
                f"the privacy ledger {self.path} is damaged, so that the budget spent is unknown: start another run"
            ) from error

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            append_line(self.path, json.dumps(entry, sort_keys=True).encode(), secret=True)
            self._size = self.path.stat().st_size
        except OSError as error:
            raise FedoelError(
                f"the privacy ledger {self.path} cannot be written ({error.strerror}), so nothing may be released: "
                "make room and go on with --resume"
            ) from error
