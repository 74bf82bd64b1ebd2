"""The server's half of a cycle, in one place to read: what it asks of devices, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from ...codecs.context import no_context
from ...protocol.amounts import most_games
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector
from ...protocol.fleet.membership import keys_folder
from ...protocol.messages import PlayRequest
from ...protocol.records.events import (
    CycleFinished,
    Decided,
    LessonsLearned,
    RunFinished,
    RunStarted,
    TrafficCounted,
)
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
from ..journal import Journal, open_journal
from ..learner import Adapter
from ..machine import machines_of
from ..safeguards import RunSafeguards
from ..summary import NAME as SUMMARY
from ..summary import read_summary, update_summary
from . import collect
from .behaviour import keep_behaviour, keep_replay
from .choices import Choices, Overruled
from .contender import begin
from .context import contexts_of, mixture_of
from .distil import TRAINED, Trained, distil
from .ended import begins_behind, keep_ended, state_behind
from .first_version import floors, warm_start, with_parameters
from .health import health_in
from .judge import judge
from .measure import measure, measure_first
from .promote import promote
from .record import check_ledger, note, note_end
from .residual import keep_residual
from .roll_out import nodes_reached, roll_out
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

    @cached_property
    def journal(self) -> Journal:
        """The run's journal, which is begun on first use."""
        return open_journal(self.run.folder, keys_folder(self.run.config))

    @cached_property
    def choices(self) -> Choices:
        """What an operator has chosen during the run."""
        return Choices(self.run, self.journal)

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
        check_ledger(run, self.journal)  # and the journal is begun before the first cycle ends
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
        keep_behaviour(run, version, 0)
        reason, teacher = "uniform play over the admissible commands", Results.of(measures.held_out)
        learned = Learned("warm-start", reason, measures, teacher=teacher)
        self._finish(State(version, evidence), 0, Traffic(0.0, 0.0, 0, {}), learned)
        if self._behind:
            self._state = state_behind(run, self._behind)
            candidate = self.journal.decision(self._behind)
            self._note(self._behind, str(candidate.values["candidate"]) if candidate else "")

    @cached_property
    def _behind(self) -> int:
        """The cycle behind which this process begins; 0 if it goes through all cycles from the first one on."""
        return begins_behind(self.journal)

    def consolidate(self, cycle: int, ask: AskFleet) -> None:
        """Turn what a cycle collected into the next version, or say why not."""
        if cycle <= self._behind:
            return
        self._take(cycle)
        traffic = _received(self.run, cycle)
        try:
            self._check_not_overruled(cycle)
            state, learned = self._learned(cycle, ask)
        except Overruled:
            reason = f"an operator chose version {self.state.version.name} while the cycle was under way"
            state, learned = self.state, Learned("overruled", reason, _unchanged(self.run, self.state, cycle))
        self._finish(state, cycle, traffic, learned)

    def _learned(self, cycle: int, ask: AskFleet) -> tuple[State, Learned]:
        """Learn from what a cycle collected; raises `Overruled` if an operator chooses another version meanwhile."""
        if not collect.cohort_of(self.run, cycle):
            reason = "no client sent a vector that could be used"
            return self.state, Learned("no-experience", reason, _unchanged(self.run, self.state, cycle))

        def ask_unless_overruled(request: PlayRequest, part: int) -> Aggregate | None:
            self._check_not_overruled(cycle)
            return ask(request, part)

        run = replace(self.run, gate=self.run.gate.with_fleet(ask_unless_overruled, self.run.parameters))
        return _learn(run, self.state, self._states_of(cycle), lambda: self._check_not_overruled(cycle))

    def _take(self, cycle: int) -> None:
        """Take what an operator has chosen since the last look."""
        before = self.state
        self._state = self.choices.take(before, cycle)
        if self._state.version is not before.version:
            self._states = None

    def _check_not_overruled(self, cycle: int) -> None:
        self._take(cycle)
        if cycle in self.choices.overruled:
            raise Overruled

    def _finish(self, state: State, cycle: int, traffic: Traffic, learned: Learned) -> None:
        """Complete a cycle: log its record, write its end into the journal, and bring the summary up to date.

        In this order, so that no cycle is ever in the summary of which the journal says nothing: `fedoel verify` takes
        such a cycle for one whose line was cut off.
        """
        self._state = self._finished(state, cycle, traffic, learned)
        keep_ended(self.run, self._state, cycle)
        self._note(cycle, learned.candidate)

    def _note(self, cycle: int, candidate: str) -> None:
        """Write the end of the cycle that the state is of into the journal and the summary."""
        note(self.run, self.journal, replace(self._summary, cycles=(self.state.record,)), candidate)
        known = self.run.log.known_cycle
        if cycle >= known:  # a resumed run goes through cycles that are in the summary already
            update_summary(self.run.folder, self._summary, cycle, due=cycle in (known, self.run.config.cycles))

    def adopt(self, cycle: int, adapter: Adapter) -> None:
        """Make what devices have trained themselves the next version, without distillation or gate: a baseline."""
        run = self.run
        trained = run.phases.run(
            cycle, AVERAGE, TRAINED, lambda advance: Trained(run.learner.policy(adapter).version, adapter)
        )
        traffic = _received(run, cycle)
        version = promote(run, trained, self.state.version.name, cycle, cohort=traffic.accepted)
        reason = f"weights of {traffic.accepted} devices, whatever they play"
        learned = Learned("averaged", reason, measure(run, version, cycle), candidate=version.name)
        keep_behaviour(run, version, cycle, self.state.version)
        keep_replay(run, version, cycle, self.state.version)
        self._finish(replace(self.state, version=version), cycle, traffic, learned)

    def adopted(self, cycle: int) -> Adapter | None:
        """Return what a finished cycle adopted; None if it is not finished."""
        phases = self.run.phases
        return TRAINED.read(phases.load(cycle, AVERAGE)).adapter if phases.finished(cycle, AVERAGE) else None

    def end(self) -> None:
        """Log that the run has come to its end, in its journal too."""
        self.run.log.emit(RunFinished(summary=SUMMARY))
        note_end(self.run, self.journal)

    # The exchanges with the cohort

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Ask for the experience of the current version, under the context that earlier exchanges gave.

        Where an operator has ended the cycle a moment ago, devices are asked about the chosen version without a
        context: the request brings it to them.
        """
        self._take(cycle)
        run, states = self.run, self._states_of(cycle)
        if cycle in self.choices.overruled:
            self._collecting.enter_context(run.log.phase(cycle, collect.numbered("collect", exchange)))
            bare = no_context(run.codec.encoder.dimension)
            return collect.request(run, self.state.version, cycle, exchange, bare, None)
        contexts = contexts_of(run, states, exchange - 1)
        with run.log.phase(cycle, collect.numbered("rehearsal", exchange)):
            baseline = states.baseline(exchange, contexts)
        self._collecting.enter_context(run.log.phase(cycle, collect.numbered("collect", exchange)))
        return collect.request(run, self.state.version, cycle, exchange, contexts[-1], baseline)

    def reached(self, nodes: list[int]) -> list[int]:
        """Return the nodes that the current version goes to."""
        return nodes_reached(self.run, self.state, nodes)

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether an exchange's outcome is on disk, or an operator has ended the cycle."""
        if cycle <= self._behind:
            return True
        self._take(cycle)
        return cycle in self.choices.overruled or self.run.phases.finished(cycle, collect.numbered("collect", exchange))

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
        """Log a cycle's record."""
        record = _recorded(self.run, state, cycle, traffic, learned)
        log = self.run.log
        log.emit(Decided(cycle=cycle, decision=record.decision, reason=record.reason, version=record.version))
        log.emit(CycleFinished(cycle=cycle, entry=record))
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
    candidate: str = ""


def _learn(run: Run, state: State, states: States, go_on: Callable[[], None]) -> tuple[State, Learned]:
    """Go through a cycle's stages: context -> search -> distil -> judge -> promote -> measure; or roll out instead.

    Parameters
    ----------
    go_on
        Called before a version is made; raises `Overruled` if there must not be one.
    """
    cycle = states.cycle
    if state.rollout is not None:
        state, reason = roll_out(run, state, state.rollout, cycle)
        return state, Learned("rolling-out", reason, _unchanged(run, state, cycle))
    found = search(run, state, states, mixture_of(run, states))
    lessons = lessons_of(run, state, states, found.contexts)
    run.log.emit(LessonsLearned(cycle=cycle, lessons=lessons))
    state = replace(state, evidence=found.current)
    gate = GateRecord(current=found.current.stats, teacher=found.tried.evidence.stats, candidate=None)
    learned = Learned(
        "no-gain", found.verdict.reason, _unchanged(run, state, cycle), found.tried.held_out, gate, lessons,
        found.contexts.kl, found.choices,
    )  # fmt: skip
    if not found.verdict.passed:
        return state, learned
    trained = distil(run, states, found.contexts)
    judged = judge(run, state, cycle, trained)
    evidence, verdict = judged.evidence, judged.verdict
    state = replace(state, evidence=judged.current)
    gate = replace(gate, current=judged.current_stats, candidate=evidence.stats if judged.tried else None)
    learned = replace(learned, gate=gate, views=trained.views, candidate=judged.candidate.version)
    if not verdict.passed:
        return state, replace(learned, decision="rejected", reason=verdict.reason)
    go_on()
    version = promote(
        run, judged.candidate, state.version.name, cycle, lessons=lessons, cohort=collect.cohort_of(run, cycle),
        gate=replace(gate, reason=verdict.reason),
    )  # fmt: skip
    keep_behaviour(run, version, cycle, state.version)
    if run.config.context.residual:
        finished = contexts_of(run, states, len(run.exchanges))[-1]
        share = keep_residual(run, states, finished, found.contexts.merged(), version)
        learned = replace(learned, views={**trained.views, "residual": share})
    reason = f"{found.verdict.reason}; {verdict.reason}"
    if run.config.server.approve:
        return state, replace(learned, decision="waiting", reason=f"{reason}; it waits for `fedoel approve`")
    rollout = begin(run.config, state.version)
    reason += f"; {rollout} begins" if rollout else ""
    learned = replace(learned, decision="promoted", reason=reason, measures=measure(run, version, cycle, evidence))
    keep_replay(run, version, cycle, state.version)
    return State(version, evidence, state.latest, rollout), learned


def _received(run: Run, cycle: int) -> Traffic:
    """Count and log what came in."""
    traffic = collect.traffic_of(run, cycle)
    run.log.emit(TrafficCounted(cycle=cycle, **asdict(traffic)))
    return traffic


def _unchanged(run: Run, state: State, cycle: int) -> Measures:
    """Return the measures of the version that stays: those of the cycle that made it.

    A candidate that an operator has promoted is measured when it is first reported.
    """
    if state.record.version == state.version.name:
        return state.record.measures
    cycles = read_summary(run.folder).cycles
    known = [record.measures for record in cycles if record.version == state.version.name]
    return known[0] if known else measure(run, state.version, cycle, state.evidence, "evaluate-chosen")


def _recorded(run: Run, state: State, cycle: int, traffic: Traffic, learned: Learned) -> CycleRecord:
    """Return a cycle's record."""
    version, held_out = state.version, learned.measures.held_out
    return CycleRecord(
        cycle=cycle, version=version.name, decision=learned.decision, reason=learned.reason,
        held_out=held_out.overall(), families=held_out.families or {}, transfer=learned.measures.transfer,
        probes=learned.measures.probes, teacher=learned.teacher, gate=learned.gate, lessons=learned.lessons,
        kl=learned.kl, choices=learned.choices, views=learned.views, **asdict(traffic),
        epsilon=run.safeguards.spent(cycle), adapter_bytes=sum(array.nbytes for array in version.adapter.values()),
        seconds=run.log.seconds(cycle), reach=state.rollout.share if state.rollout else None,
        health=health_in(run, cycle),
    )  # fmt: skip
