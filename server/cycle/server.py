"""The server's half of a cycle, in one place to read: what it asks of devices, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from ...protocol.amounts import most_games
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector
from ...protocol.messages import PlayRequest
from ...protocol.records.events import CycleFinished, Decided, LessonsLearned, RunStarted, TrafficCounted
from ...protocol.records.summary import (
    ChoiceRecord,
    CycleRecord,
    GateRecord,
    Lesson,
    Measures,
    Results,
    Summary,
)
from ...strategies.server_side import AskFleet, Traffic
from ..learner import Adapter
from ..machine import machines_of
from ..safeguards import RunSafeguards
from ..summary import update_summary
from . import collect
from .context import contexts_of, mixture_of
from .distil import TRAINED, Trained, distil
from .first_version import floors, warm_start, with_parameters
from .judge import judge
from .measure import measure, measure_first
from .promote import promote
from .run import Run, State, States
from .search import lessons_of, search

AVERAGE = "average"


class CycleServer:
    """Implements `fedoel.strategies.server_side.ServerSide`.

    Between calls it holds the state after the last cycle, and the public states of the cycle that is under way.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._summary: Summary  # without cycles, which are in the log; since `start`
        self._state: State | None = None
        self._states: States | None = None
        self._collecting = ExitStack()

    @property
    def safeguards(self) -> RunSafeguards:
        """What protects the cohort."""
        return self.run.safeguards

    @property
    def most_games(self) -> int:
        """Most games that a device plays in an exchange."""
        games = self.run.config.games
        return most_games(games.per_client, games.amounts)

    @property
    def state(self) -> State:
        """The state after the last cycle.

        Raises
        ------
        FedoelError
            Before `start`.
        """
        if self._state is None:
            raise FedoelError("the run has not started: call start() before the first cycle")
        return self._state

    # The life of a run

    def start(self) -> None:
        """Make or read the first version, its floors and its first measures: cycle 0."""
        run, config = self.run, self.run.config
        run.log.emit(
            RunStarted(
                scenario=config.name, seed=config.seed, engine=run.engine, clients=config.clients,
                cycles=config.cycles, config=config.to_flat(),
            )
        )  # fmt: skip
        # Other processes make the games, if there are any, while this one loads the model.
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(run.public.prepare)
            with run.log.phase(0, "model"):
                run.learner.load()
            with run.log.phase(0, "games"):
                made.result()
        run = self.run = with_parameters(run)
        version = promote(run, warm_start(run), parent="", cycle=0)
        self._summary = Summary(
            scenario=config.name, seed=config.seed, engine=run.engine, private=run.safeguards.noisy,
            privacy=run.safeguards.describe(run.secure), plaintext=config.privacy.allow_plaintext,
            config=config.to_flat(), machines=machines_of(run.folder, config.policy), floors=floors(run), cycles=(),
        )  # fmt: skip
        measures, evidence = measure_first(run, version)
        reason, teacher = "uniform play over the admissible commands", Results.of(measures.held_out)
        learned = Learned("warm-start", reason, measures, teacher=teacher)
        self._state = self._finished(State(version, evidence), 0, Traffic(0.0, 0.0, 0, {}), learned)

    def consolidate(self, cycle: int, ask: AskFleet) -> None:
        """Turn what a cycle collected into the next version, or say why not."""
        traffic = _received(self.run, cycle)
        if collect.cohort_of(self.run, cycle):
            run = replace(self.run, gate=self.run.gate.with_fleet(ask, self.run.parameters))
            state, learned = _learn(run, self.state, self._states_of(cycle))
        else:
            reason = "no client sent a vector that could be used"
            state, learned = self.state, Learned("no-experience", reason, _unchanged(self.state))
        self._state = self._finished(state, cycle, traffic, learned)

    def adopt(self, cycle: int, adapter: Adapter) -> None:
        """Make what devices have trained themselves the next version, without distillation or gate: a baseline."""
        run = self.run
        trained = run.phases.run(
            cycle, AVERAGE, TRAINED, lambda advance: Trained(run.learner.policy(adapter).version, adapter)
        )
        traffic = _received(run, cycle)
        version = promote(run, trained, self.state.version.name, cycle, cohort=traffic.accepted)
        reason = f"weights of {traffic.accepted} devices, whatever they play"
        learned = Learned("averaged", reason, measure(run, version, cycle))
        self._state = self._finished(replace(self.state, version=version), cycle, traffic, learned)

    def adopted(self, cycle: int) -> Adapter | None:
        """Return what a finished cycle adopted; None if it is not finished."""
        phases = self.run.phases
        return TRAINED.read(phases.load(cycle, AVERAGE)).adapter if phases.finished(cycle, AVERAGE) else None

    # The exchanges with the cohort

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Ask for the experience of the current version, under the context that earlier exchanges gave."""
        run, states = self.run, self._states_of(cycle)
        contexts = contexts_of(run, states, exchange - 1)
        with run.log.phase(cycle, collect.numbered("rehearsal", exchange)):
            baseline = states.baseline(exchange, contexts)
        self._collecting.enter_context(run.log.phase(cycle, collect.numbered("collect", exchange)))
        return collect.request(run, self.state.version, cycle, exchange, contexts[-1], baseline)

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether an exchange's outcome is on disk."""
        return self.run.phases.finished(cycle, collect.numbered("collect", exchange))

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep an exchange's aggregate, or that there is none."""
        collect.keep(self.run, cycle, exchange, collect.Collected(self.state.version.name, traffic, aggregate))
        self._collecting.close()

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange."""
        return collect.collected_before(self.run, cycle, exchange)

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """Return what the server learned itself from its public states of this exchange."""
        states = self._states_of(cycle)
        return states.reference(exchange, contexts_of(self.run, states, exchange - 1))

    def _states_of(self, cycle: int) -> States:
        if self._states is None or self._states.cycle != cycle:
            self._states = self.run.public.states(self.run, self.state.version, cycle)
        return self._states

    def _finished(self, state: State, cycle: int, traffic: Traffic, learned: Learned) -> State:
        """Log a cycle's record, and bring the summary up to date."""
        record = _recorded(self.run, state, cycle, traffic, learned)
        log = self.run.log
        log.emit(Decided(cycle=cycle, decision=record.decision, reason=record.reason, version=record.version))
        log.emit(CycleFinished(cycle=cycle, entry=record))
        if cycle >= log.known_cycle:  # a resumed run goes through cycles that are in the summary already
            update_summary(self.run.folder, self._summary, cycle, last=cycle == self.run.config.cycles)
        return replace(state, latest=record)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a cycle came to: its decision, measures of the version that plays from now on, and how it got there."""

    decision: str
    reason: str
    measures: Measures
    teacher: Results | None = None
    gate: GateRecord | None = None
    lessons: tuple[Lesson, ...] = ()
    kl: float = 0.0
    choices: tuple[ChoiceRecord, ...] = ()
    views: Mapping[str, float] | None = None


def _learn(run: Run, state: State, states: States) -> tuple[State, Learned]:
    """Go through a cycle's stages: context -> search -> distil -> judge -> promote -> measure."""
    cycle = states.cycle
    found = search(run, state, states, mixture_of(run, states))
    lessons = lessons_of(run, state, states, found.contexts)
    run.log.emit(LessonsLearned(cycle=cycle, lessons=lessons))
    state = replace(state, evidence=found.current)
    gate = GateRecord(current=found.current.stats, teacher=found.tried.evidence.stats, candidate=None)
    learned = Learned(
        "no-gain", found.verdict.reason, _unchanged(state), found.tried.held_out, gate, lessons, found.contexts.kl,
        found.choices,
    )  # fmt: skip
    if not found.verdict.passed:
        return state, learned
    trained = distil(run, states, found.contexts)
    judged = judge(run, state, cycle, trained)
    evidence, verdict = judged.evidence, judged.verdict
    state = replace(state, evidence=judged.current)
    gate = replace(gate, current=judged.current_stats, candidate=evidence.stats)
    learned = replace(learned, gate=gate, views=trained.views)
    if not verdict.passed:
        return state, replace(learned, decision="rejected", reason=verdict.reason)
    version = promote(
        run, judged.candidate, state.version.name, cycle, lessons=lessons, cohort=collect.cohort_of(run, cycle),
        gate=replace(gate, reason=verdict.reason),
    )  # fmt: skip
    reason, measures = f"{found.verdict.reason}; {verdict.reason}", measure(run, version, cycle, evidence)
    learned = replace(learned, decision="promoted", reason=reason, measures=measures)
    return State(version, evidence, state.latest), learned


def _received(run: Run, cycle: int) -> Traffic:
    """Count and log what came in."""
    traffic = collect.traffic_of(run, cycle)
    run.log.emit(TrafficCounted(cycle=cycle, **asdict(traffic)))
    return traffic


def _unchanged(state: State) -> Measures:
    """Return the measures of the version that stays."""
    return state.record.measures


def _recorded(run: Run, state: State, cycle: int, traffic: Traffic, learned: Learned) -> CycleRecord:
    """Return a cycle's record."""
    version, held_out = state.version, learned.measures.held_out
    return CycleRecord(
        cycle=cycle, version=version.name, decision=learned.decision, reason=learned.reason,
        held_out=held_out.overall(), families=held_out.families or {}, transfer=learned.measures.transfer,
        probes=learned.measures.probes, teacher=learned.teacher, gate=learned.gate, lessons=learned.lessons,
        kl=learned.kl, choices=learned.choices, views=learned.views, **asdict(traffic),
        epsilon=run.safeguards.spent(cycle), adapter_bytes=sum(array.nbytes for array in version.adapter.values()),
        seconds=run.log.seconds(cycle),
    )  # fmt: skip
