"""The summary of a run: what ``summary.json`` holds.

All win rates, scores and interval bounds are fractions between 0 and 1; divergences are in nats, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..config import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Results over some episodes.

    Parameters
    ----------
    win_rate, low, high
        Share of episodes won, and the bounds of its 95 % interval.
    episodes
        How many were played.
    score
        Mean score.
    turns_per_win, tokens_per_win
        All turns, and all prompt and command tokens, of the episodes, lost ones included, over the number of wins;
        None when nothing was won.
    response_tokens
        Mean length of what was written in a turn; zero where commands are walked as a tree.
    invalid
        Share of turns in which what was written was no command; zero where commands are walked as a tree.
    """

    win_rate: float
    low: float
    high: float
    episodes: int
    score: float
    turns_per_win: float | None
    tokens_per_win: float | None
    response_tokens: float = 0.0
    invalid: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Stats):
    """Results over all episodes and, where they were told apart, over those of each family."""

    families: Mapping[str, Stats] | None = None

    @classmethod
    def of(cls, stats: Stats, families: Mapping[str, Stats] | None = None) -> Results:
        """Return the overall results in `stats` with others for the families."""
        return cls(**_overall(stats), families=families)

    def overall(self) -> Stats:
        """Return the results over all episodes alone."""
        return Stats(**_overall(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is measured of a version: held-out games, games of families that nobody learns from, and probes.

    `probes` are what the learner measures outside of games: ``perplexity``, ``instructions``, and each for the base
    model with the prefix ``base_``.
    """

    held_out: Results
    transfer: Mapping[str, Stats] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor(Stats):
    """Results of play without learning, on the same held-out games.

    `cycles` is there where the floor learns, too: the results after each of its cycles, the last of which are these.
    """

    families: Mapping[str, Stats]
    transfer: Mapping[str, Stats] = field(default_factory=dict)
    cycles: tuple[Floor, ...] | None = None

    @classmethod
    def of(cls, record: CycleRecord, cycles: tuple[Floor, ...] | None = None) -> Floor:
        """Return the results of a cycle's version as a floor."""
        return cls(**_overall(record.held_out), families=record.families, transfer=record.transfer, cycles=cycles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Play at random, by rules written for each family, by the walkthrough, and by tactics without a language model.

    The last one is a run of its own, and is there once that has finished.
    """

    random: Floor
    heuristic: Floor
    walkthrough: Floor
    tactics_only: Floor | None = None

    def named(self) -> dict[str, Floor]:
        """Return the floors that are there, by name, in the order in which views show them."""
        floors = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: floor for name, floor in floors.items() if floor is not None}


@dataclass(frozen=True, slots=True)
class Lesson:
    """One coordinate of a context in words.

    Parameters
    ----------
    tactic
        What it stands for.
    weight
        Positive where the tactic becomes more likely, negative where less.
    support
        Fisher information behind the weight.
    cluster
        Number of the context, from 1, where a cycle distils several.
    """

    tactic: str
    weight: float
    support: float
    cluster: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRecord:
    """One of the contexts that the gate's games chose among, with its divergence and mean merit there."""

    name: str
    kl: float
    merit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """Results on the gate's games of the current version, of its teacher, and of the candidate once there is one.

    `reason` is set in the manifest of a promoted version.
    """

    current: Stats
    teacher: Stats
    candidate: Stats | None
    reason: str | None = None

    def named(self) -> dict[str, Stats | None]:
        """Return the results by who played."""
        return {"current": self.current, "teacher": self.teacher, "candidate": self.candidate}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassHealth:
    """How the devices of one class are, in counts of answers to trials, which noise may make negative.

    Parameters
    ----------
    answers
        All of them; a device that was asked twice in a cycle counts twice.
    died
        Those from devices of which a process had died since the last cycle in which they said so.
    behind
        Those from devices that had another version for their owners than the current one.
    pace, peak
        Those in each bucket of the time per turn and of the peak memory, see `fedoel.protocol.health`.
    """

    answers: float
    died: float
    behind: float
    pace: tuple[float, ...]
    peak: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHealth:
    """How a fleet is, by class of device; `deviation` is the standard deviation of the noise in every count."""

    classes: Mapping[str, ClassHealth]
    deviation: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRecord:
    """One cycle of a run. Cycle 0 is the warm start.

    Parameters
    ----------
    version
        Hash of the version that plays after the cycle.
    decision, reason
        What became of the cycle's candidate: ``promoted``, ``rejected``, ``no-gain``, ``no-experience``,
        ``warm-start``, ``averaged``, ``rolling-out`` (of the version before), ``waiting`` (for an operator) or
        ``overruled`` (by an operator); and why.
    held_out, families, transfer, probes
        Measures of that version, see `Measures`. In a deployment whose server has no games, `held_out` is what the
        version won in its trial, on the fleet's own games, with no episodes where that is unknown.
    teacher
        Held-out results of the version before with the cycle's context, of the version itself in cycle 0; None where no
        context was tried.
    gate
        None where nothing was tried.
    lessons
        The context in words.
    kl
        Mean divergence of the teacher from the version before.
    choices
        Contexts that the gate's games chose among, best first.
    uplink_bytes, downlink_bytes
        Sent and received by one client, on average.
    accepted, refused
        Vectors that counted, and those that did not, by reason.
    epsilon
        Spent so far; zero without noise.
    adapter_bytes
        Size of the version's adapter.
    seconds
        Duration of each phase.
    views
        Divergences of the student from its teacher at the end of distillation, and with `context.residual` the share of
        the context that the student has left.
    device_seconds
        Time in which all devices worked, where phases do not say it.
    reach
        Share of the fleet that the version goes to after the cycle; None for the whole fleet.
    health
        How the devices are that took part in the cycle's trials; None where they were not asked.
    """

    cycle: int
    version: str
    decision: str
    reason: str
    held_out: Stats
    families: Mapping[str, Stats]
    transfer: Mapping[str, Stats] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    teacher: Results | None
    gate: GateRecord | None
    lessons: tuple[Lesson, ...]
    kl: float
    choices: tuple[ChoiceRecord, ...] = ()
    uplink_bytes: float
    downlink_bytes: float
    accepted: int
    refused: Mapping[str, int]
    epsilon: float = 0.0
    adapter_bytes: int
    seconds: Mapping[str, float]
    views: Mapping[str, float] | None = None
    device_seconds: float | None = None
    reach: float | None = None
    health: FleetHealth | None = None

    @property
    def by_fleet(self) -> bool:
        """Whether `held_out` and `teacher` are results of trials: a server without games has no families to report."""
        return not self.families

    @property
    def measures(self) -> Measures:
        """Measures of the version that plays after the cycle."""
        held_out = Results.of(self.held_out, self.families)
        return Measures(held_out=held_out, transfer=self.transfer, probes=self.probes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPromise:
    """What a run promises its devices: the mechanism, whether the server sees sums only, and what noise costs.

    The fields behind the first two are set where noise is added: epsilon at delta over the whole run, the noise
    multiplier in clipping norms, devices per release and in all, and the number of releases.
    """

    mechanism: str = "none"
    secure_sum: bool = False
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    sample: int | None = None
    population: int | None = None
    releases: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the numbers of a run depend on beside its configuration and seed: rounding differs from one to another.

    Parameters
    ----------
    processor, instructions
        Name of the processor, and the widest vector instructions that computed the model: ``AVX2``, ``AVX512``.
    threads
        Threads that computed the model.
    precision
        Precision of the matrix products of frozen layers, resolved where the configuration says ``auto``; empty
        without torch.
    versions
        Of Python, of fedoel, and of the libraries that compute.
    commit
        Commit of fedoel's source, with ``-dirty`` if it was changed; empty where it is not known.
    """

    processor: str
    instructions: str
    threads: int
    precision: str
    versions: Mapping[str, str]
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run: its setting, floors and cycles.

    Parameters
    ----------
    private
        Whether noise is added.
    plaintext
        Whether devices sent words about what happened on them.
    config
        The flat configuration, as written by the fedoel that made the run.
    machines
        What computed the server's part, one after the other where a run was resumed on another machine or with other
        versions; None in runs from before it was kept.
    """

    scenario: str
    seed: int
    engine: str
    private: bool
    privacy: PrivacyPromise = PrivacyPromise()
    plaintext: bool = False
    config: Mapping[str, Scalar]
    machines: tuple[Machine, ...] | None = None
    floors: Floors
    cycles: tuple[CycleRecord, ...]

    @property
    def families(self) -> list[str]:
        """Names of the game families, in the order of the records."""
        return list(self.cycles[0].families)

    @property
    def by_fleet(self) -> bool:
        """Whether the results are those of trials on the fleet's own games, and no held-out games were played."""
        return self.cycles[0].by_fleet

    @property
    def transfer(self) -> list[str]:
        """Names of the games that every version plays and nobody learns from."""
        return list(self.cycles[0].transfer)

    @property
    def clients(self) -> int:
        """Number of clients of the run."""
        return int(self.config["clients"])


def _overall(stats: Stats) -> dict[str, Any]:
    return {item.name: getattr(stats, item.name) for item in fields(Stats)}
