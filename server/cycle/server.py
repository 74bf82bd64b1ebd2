"""The server's half of a cycle, in one place to read: what it asks of devices, and what becomes of their answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace

from ...games.prepare import prepare
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector
from ...protocol.messages import PlayRequest
from ...strategies.rounds import Traffic
from ..events import read_events, seconds_by_phase
from ..learner import Adapter
from ..safeguards import RunSafeguards
from ..summary import Entry, without_families, write_summary
from . import collect
from .context import contexts_of, mixture_of
from .distil import distil
from .first_version import floors, warm_start
from .judge import judge
from .measure import measure, measure_first
from .promote import promote
from .rollouts import PublicRollouts
from .run import Run
from .search import lessons_of, search
from .state import State
from .trained import TRAINED, Trained

AVERAGE = "average"
NOTHING_LEARNED: Entry = {"gate": None, "teacher": None, "lessons": [], "kl": 0.0, "choices": []}


class CycleServer:
    """Implements `fedoel.strategies.life_cycle.ServerSide`: the rounds and the life of a run.

    Between calls it holds the state after the last cycle, and the public rollouts of the cycle that is under way.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._state: State | None = None
        self._rollouts: PublicRollouts | None = None
        self._collecting = ExitStack()

    @property
    def rounds(self) -> CycleServer:
        """Requests, and what came back."""
        return self

    @property
    def life(self) -> CycleServer:
        """The life of the run."""
        return self

    @property
    def safeguards(self) -> RunSafeguards:
        """What protects the cohort."""
        return self.run.safeguards

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
        run = self.run
        summary = _begun(run)
        _log_start(run, summary)
        games = (*run.plan.rehearsal, *run.plan.gate, *run.plan.measured)
        # Other processes make the games while this one loads the model.
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(prepare, games, run.cache)
            with run.log.phase(0, "model"):
                run.learner.load()
            with run.log.phase(0, "games"):
                made.result()
        version = promote(run, warm_start(run), parent="", cycle=0)
        summary["floors"] = floors(run)
        first = measure_first(run, version)
        entry = {
            **NOTHING_LEARNED, **asdict(Traffic(0.0, 0.0, 0, {})), **first.measured.entry, "decision": "warm-start",
            "reason": "uniform play over the admissible commands",
            "teacher": without_families(first.measured.held_out),
        }  # fmt: skip
        self._state = _finished(run, State(version, first.evidence, summary), 0, entry)

    def consolidate(self, cycle: int) -> None:
        """Turn what a cycle collected into the next version, or say why not."""
        entry = _received(self.run, cycle)
        if not collect.cohort_of(self.run, cycle):
            reason = "no client sent a vector that could be used"
            entry |= {**_unchanged(self.state), "decision": "no-experience", "reason": reason}
            self._state = _finished(self.run, self.state, cycle, entry)
            return
        state, learned = _learn(self.run, self.state, self._rollouts_of(cycle))
        self._state = _finished(self.run, state, cycle, {**entry, **learned})

    def adopt(self, cycle: int, adapter: Adapter) -> None:
        """Make what devices have trained themselves the next version, without distillation or gate: a baseline."""
        run = self.run
        trained = run.phases.run(
            cycle, AVERAGE, TRAINED, lambda advance: Trained(run.learner.policy(adapter).version, adapter)
        )
        entry = _received(run, cycle)
        devices = entry["accepted"]
        version = promote(run, trained, self.state.version.name, cycle, cohort=devices)
        reason = f"weights of {devices} devices, whatever they play"
        entry |= {**measure(run, version, cycle).entry, "decision": "averaged", "reason": reason}
        self._state = _finished(run, replace(self.state, version=version), cycle, entry)

    def adopted(self, cycle: int) -> Adapter | None:
        """Return what a finished cycle adopted; None if it is not finished."""
        phases = self.run.phases
        return TRAINED.read(phases.load(cycle, AVERAGE)).adapter if phases.finished(cycle, AVERAGE) else None

    # The exchanges with the cohort

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Ask for the experience of the current version, under the context that earlier exchanges gave."""
        run, rollouts = self.run, self._rollouts_of(cycle)
        contexts = contexts_of(run, rollouts, exchange - 1)
        with run.log.phase(cycle, collect.numbered("rehearsal", exchange)):
            baseline = rollouts.baseline(exchange, contexts)
        self._collecting.enter_context(run.log.phase(cycle, collect.numbered("collect", exchange)))
        return collect.request(run, self.state.version, cycle, exchange, contexts[-1], baseline)

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether an exchange's outcome is on disk."""
        return collect.is_collected(self.run, cycle, exchange)

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep an exchange's aggregate, or that there is none."""
        found = collect.Collected.of(self.state.version.name, aggregate, traffic)
        collect.keep(self.run, cycle, exchange, found)
        self._collecting.close()

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange."""
        return collect.collected_before(self.run, self.state.version, cycle, exchange)

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """Return what the server learned itself from its public rollouts of this exchange."""
        rollouts = self._rollouts_of(cycle)
        return rollouts.reference(exchange, contexts_of(self.run, rollouts, exchange - 1))

    def _rollouts_of(self, cycle: int) -> PublicRollouts:
        if self._rollouts is None or self._rollouts.cycle != cycle:
            self._rollouts = PublicRollouts(self.run, self.state.version, cycle)
        return self._rollouts


def _learn(run: Run, state: State, rollouts: PublicRollouts) -> tuple[State, Entry]:
    """Go through a cycle's stages: context -> search -> distil -> judge -> promote -> measure."""
    cycle = rollouts.cycle
    found = search(run, state, rollouts, mixture_of(run, rollouts))
    lessons = lessons_of(run, found.contexts)
    run.log.emit("lessons", cycle=cycle, lessons=lessons)
    gate: Entry = {"current": found.tried.current, "teacher": found.tried.evidence.stats, "candidate": None}
    entry: Entry = {
        "lessons": lessons, "kl": found.contexts.kl, "choices": found.choices, "teacher": found.tried.held_out,
        "gate": gate,
    }  # fmt: skip
    if not found.verdict.passed:
        return state, {**entry, **_unchanged(state), "decision": "no-gain", "reason": found.verdict.reason}
    candidate = distil(run, state.version, rollouts, found.contexts)
    judged = judge(run, state, cycle, candidate)
    entry |= {"views": dict(candidate.views), "gate": {**gate, "candidate": judged.evidence.stats}}
    if not judged.verdict.passed:
        return state, {**entry, **_unchanged(state), "decision": "rejected", "reason": judged.verdict.reason}
    version = promote(
        run, candidate, state.version.name, cycle, lessons=lessons, cohort=collect.cohort_of(run, cycle),
        gate={**entry["gate"], "reason": judged.verdict.reason},
    )  # fmt: skip
    measured = measure(run, version, cycle)
    reason = f"{found.verdict.reason}; {judged.verdict.reason}"
    return State(version, judged.evidence, state.summary), {
        **entry, **measured.entry, "decision": "promoted", "reason": reason
    }  # fmt: skip


def _received(run: Run, cycle: int) -> Entry:
    """Begin a cycle's entry: what came in, and nothing learned yet."""
    traffic = asdict(collect.traffic_of(run, cycle))
    run.log.emit("traffic", cycle=cycle, **traffic)
    return {**traffic, **NOTHING_LEARNED}


def _unchanged(state: State) -> Entry:
    """Repeat the results of the version that stays."""
    last = state.summary["cycles"][-1]
    held_out = {**last["held_out"], "families": last["families"]}
    return {"held_out": held_out, "transfer": last["transfer"], "probes": last["probes"]}


def _begun(run: Run) -> Entry:
    """Begin the summary of a run."""
    config = run.config
    return {
        "scenario": config.name, "seed": config.seed, "engine": run.engine, "private": run.safeguards.noisy,
        "privacy": run.safeguards.describe(run.secure), "plaintext": config.privacy.allow_plaintext,
        "config": config.to_flat(), "floors": {}, "cycles": [],
    }  # fmt: skip


def _log_start(run: Run, summary: Entry) -> None:
    names = ("scenario", "seed", "engine", "config")
    fields = {name: summary[name] for name in names}
    run.log.emit("run_started", clients=run.config.clients, cycles=run.config.cycles, **fields)


def _finished(run: Run, state: State, cycle: int, entry: Entry) -> State:
    """Complete a cycle's entry, log it and rewrite the summary."""
    version, families = state.version, entry["held_out"]["families"]
    entry = {
        "cycle": cycle, "version": version.name, **entry, "held_out": without_families(entry["held_out"]),
        "epsilon": run.safeguards.spent(cycle), "families": families,
        "adapter_bytes": sum(array.nbytes for array in version.adapter.values()),
        "seconds": seconds_by_phase(read_events(run.folder / "events.jsonl"), cycle),
    }  # fmt: skip
    decision = {name: entry[name] for name in ("decision", "reason", "version")}
    run.log.emit("decision", cycle=cycle, **decision)
    run.log.emit("cycle_finished", cycle=cycle, entry=entry)
    summary = {**state.summary, "cycles": [*state.summary["cycles"], entry]}
    write_summary(run.folder, summary)
    return replace(state, summary=summary)
