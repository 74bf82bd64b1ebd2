"""The server's half of a cycle: context, distillation, gate, promotion, evaluation; every phase is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..client.encoders.tactics import encode
from ..client.games.prepare import prepare
from ..client.player import Advance, play_episodes
from ..client.policy.policy import LogProbs, Policy
from ..client.policy.tactics_policy import TacticsPolicy
from ..protocol.config import RunConfig
from ..protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec
from ..protocol.messages import PlayRequest
from ..protocol.play import Trajectory, Turn
from ..protocol.tactics import DIMENSION, VOCABULARY
from ..protocol.versions import Manifest
from ..strategies.consolidator import Traffic
from .baselines import play_floors
from .context import Context, lessons, solve
from .events import EventLog, read_events, seconds_by_phase
from .gate import Trial, candidate_holds, context_helps
from .learner import Adapter, Learner
from .phases import Outcome, Phases
from .plan import GameId, Plan
from .registry import save_version
from .summary import Entry, stats_of, without_families, write_summary
from .tilted import TiltedPolicy


class Cycles:
    """Implements `fedoel.strategies.consolidator.Consolidator`.

    Between cycles it carries the current adapter, its version and its trial on the gate's games; all are
    rebuilt from the phases on disk when a run is resumed.
    """

    def __init__(
        self, config: RunConfig, plan: Plan, learner: Learner, log: EventLog, cache: Path, engine: str
    ) -> None:
        self.config, self.learner, self.log, self.cache = config, learner, log, cache
        self.plan, self.out = plan, Path(config.out)
        self.phases = Phases(self.out / "checkpoints", log)
        self.summary: Entry = {
            "scenario": config.name, "seed": config.seed, "engine": engine, "private": False,
            "config": config.to_flat(), "floors": {}, "cycles": [],
        }  # fmt: skip
        self.adapter: Adapter = {}
        self.version = ""
        self._collecting = ExitStack()
        self._rehearsed: dict[int, list[Trajectory]] = {}

    # Cycle 0

    def start(self) -> None:
        """Make the warm start, the floors, and the first evaluation."""
        self._emit_start()
        games = (*self.plan.rehearsal, *self.plan.gate, *self.plan.held_out)
        # Other processes make the games while this one loads the model.
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(prepare, games, self.cache)
            with self.log.phase(0, "model"):
                self.learner.load()
            with self.log.phase(0, "games"):
                made.result()
        first = self.phases.run(0, "warm-start", self._warm_start, self.config.warm_start.steps)
        self._promote(_part(first.arrays, "adapter"), self._manifest(first.values["version"], 0, [], 0, {}))
        self.summary["floors"] = self.phases.run(0, "floors", self._floors, len(self.plan.held_out)).values
        result = self.phases.run(0, "evaluate", self._evaluate_first, len(self.plan.held_out) + len(self.plan.gate))
        self.trial, self.gate_stats = Trial.from_arrays(result.arrays), result.values["gate"]
        self._finish(0, {
            "decision": "warm-start",
            "reason": "uniform play over the admissible commands",
            "held_out": result.values["held_out"],
            "teacher": without_families(result.values["held_out"]), "gate": None, "lessons": [], "kl": 0.0,
            "uplink_bytes": 0.0, "downlink_bytes": 0.0, "accepted": 0, "refused": {},
        })  # fmt: skip

    def _warm_start(self, advance: Advance) -> Outcome:
        uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, dtype=np.float32))
        played = self._play(uniform, self.plan.rehearsal, "uniform")
        adapter = self.learner.warm_start(_turns(played), advance)
        version = self.learner.policy(adapter).version
        return Outcome({"version": version}, _named(adapter, "adapter"))

    def _floors(self, advance: Advance) -> Outcome:
        streams = self.plan.streams("held-out", len(self.plan.held_out))
        played = play_floors(self.plan.held_out, streams, self.cache, advance)
        return Outcome({name: stats_of(trajectories) for name, trajectories in played.items()})

    def _evaluate_first(self, advance: Advance) -> Outcome:
        policy = self.learner.policy(self.adapter, measured=True)
        played = self._play(policy, self.plan.gate, "gate", advance=advance)
        values = {"held_out": self._held_out(policy, advance), "gate": without_families(stats_of(played))}
        return Outcome(values, Trial.of(played).to_arrays())

    # The exchange with the cohort

    def request(self, cycle: int) -> PlayRequest:
        """Ask for the experience of the current version.

        The baseline is what this version earns on public games: the aggregate before speaks of a worse player, and a
        baseline that lags behind blames and praises at random.
        """
        self._collecting.enter_context(self.log.phase(cycle, "collect"))
        return PlayRequest(cycle, self._spec(self.version), self._baseline(self._rehearse(cycle)), self.adapter)

    def collected(self, cycle: int) -> bool:
        """Whether this cycle's aggregate is on disk already."""
        return self.phases.finished(cycle, "collect")

    def collect(self, cycle: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep the aggregate, or that there is none."""
        vector = {} if aggregate is None else {"vector": aggregate.vector.to_array()}
        values = {**asdict(traffic), "refused": dict(traffic.refused), "cohort": aggregate.cohort if aggregate else 0}
        self.phases.keep(cycle, "collect", Outcome(values, vector))
        self._collecting.close()

    # The cycle itself

    def consolidate(self, cycle: int) -> None:
        """Turn what was collected into the next version, or say why not."""
        collected = self.phases.load(cycle, "collect")
        traffic = {k: v for k, v in collected.values.items() if k != "cohort"}
        self.log.emit("traffic", cycle=cycle, **traffic)
        entry: Entry = {**traffic, "gate": None, "teacher": None, "lessons": [], "kl": 0.0}
        if "vector" not in collected.arrays:
            reason = "no client sent a vector that could be used"
            self._finish(cycle, {**entry, **self._as_before(), "decision": "no-experience", "reason": reason})
            return
        aggregate = Aggregate(
            ExperienceVector.unchecked(self._spec(self.version), collected.arrays["vector"]), collected.values["cohort"]
        )
        self._finish(cycle, {**entry, **self._learn(cycle, aggregate)})

    def _learn(self, cycle: int, aggregate: Aggregate) -> Entry:
        found = self.phases.run(cycle, "context", lambda advance: self._context(cycle, aggregate))
        self.log.emit("lessons", cycle=cycle, lessons=found.values["lessons"])
        context = Context(found.arrays["weights"], found.values["kl"], found.values["scale"])
        entry: Entry = {"lessons": found.values["lessons"], "kl": context.kl}
        games = len(self.plan.gate) + len(self._teacher_games())
        tried = self.phases.run(cycle, "teacher", lambda advance: self._teacher(context, advance), games)
        entry |= {"teacher": tried.values["held_out"], "gate": {**tried.values["gate"], "candidate": None}}
        helps = context_helps(self.trial, Trial.from_arrays(tried.arrays))
        if not helps.passed:
            return {**entry, **self._as_before(), "decision": "no-gain", "reason": helps.reason}
        made = self.phases.run(
            cycle, "distil", lambda advance: self._distil(cycle, context, advance), self.config.distil.steps
        )
        candidate = _part(made.arrays, "adapter")
        judged = self.phases.run(cycle, "gate", lambda advance: self._judge(candidate, advance), len(self.plan.gate))
        entry["gate"] = {**entry["gate"], **judged.values["gate"]}
        trial = Trial.from_arrays(judged.arrays)
        holds = candidate_holds(self.trial, trial)
        if not holds.passed:
            return {**entry, **self._as_before(), "decision": "rejected", "reason": holds.reason}
        gate = {**entry["gate"], "reason": holds.reason}
        manifest = self._manifest(made.values["version"], cycle, entry["lessons"], aggregate.cohort, gate)
        self._promote(candidate, manifest)
        self.trial, self.gate_stats = trial, entry["gate"]["candidate"]
        result = self.phases.run(cycle, "evaluate", self._evaluate, len(self.plan.held_out))
        return {**entry, **result.values, "decision": "promoted", "reason": f"{helps.reason}; {holds.reason}"}

    def _context(self, cycle: int, aggregate: Aggregate) -> Outcome:
        context = solve(aggregate, _turns(self._rehearse(cycle)), self.config.context)
        learned = [asdict(lesson) for lesson in lessons(context, aggregate)]
        return Outcome({"kl": context.kl, "scale": context.scale, "lessons": learned}, {"weights": context.weights})

    def _teacher(self, context: Context, advance: Advance) -> Outcome:
        teacher = TiltedPolicy(self.learner.policy(self.adapter, measured=True), context.weights)
        played = self._play(teacher, self.plan.gate, "gate", advance=advance)
        held_out = self._play(teacher, self._teacher_games(), "held-out", advance=advance)
        gate = {"current": self.gate_stats, "teacher": without_families(stats_of(played))}
        return Outcome({"held_out": stats_of(held_out), "gate": gate}, Trial.of(played).to_arrays())

    def _distil(self, cycle: int, context: Context, advance: Advance) -> Outcome:
        """Train on states that the student visits without the context, and on those that the teacher leads to."""
        teacher = TiltedPolicy(self.learner.policy(self.adapter), context.weights)
        own = _turns(self._rehearse(cycle))
        led = _turns(self._play(teacher, self.plan.rehearsal, "rehearsal-teacher", cycle))
        targets: list[LogProbs] = [*teacher.tilt_logged(own), *(turn.log_probs for turn in led)]
        seed = self.plan.training_seed(cycle)
        adapter = self.learner.distil(self.adapter, context, [*own, *led], targets, seed, advance)
        return Outcome({"version": self.learner.policy(adapter).version}, _named(adapter, "adapter"))

    def _judge(self, candidate: Adapter, advance: Advance) -> Outcome:
        played = self._play(self.learner.policy(candidate, measured=True), self.plan.gate, "gate", advance=advance)
        return Outcome({"gate": {"candidate": without_families(stats_of(played))}}, Trial.of(played).to_arrays())

    def _evaluate(self, advance: Advance) -> Outcome:
        return Outcome({"held_out": self._held_out(self.learner.policy(self.adapter, measured=True), advance)})

    # Playing

    def _play(
        self, policy: Policy, games: Sequence[GameId], purpose: str, cycle: int = 0, advance: Advance = lambda n: None
    ) -> list[Trajectory]:
        return play_episodes(policy, games, self.plan.streams(purpose, len(games), cycle), self.cache, advance)

    def _rehearse(self, cycle: int) -> list[Trajectory]:
        """Episodes of the current version on the rehearsal games; played once a cycle, and again after a resume."""
        if cycle not in self._rehearsed:
            self.learner.forget()
            policy = self.learner.policy(self.adapter)
            self._rehearsed = {cycle: self._play(policy, self.plan.rehearsal, "rehearsal", cycle)}
        return self._rehearsed[cycle]

    def _baseline(self, played: Sequence[Trajectory]) -> Vector:
        """Mean return-to-go by family and step, shape (families, horizon)."""
        zero = np.zeros((len(self.plan.families), self.plan.horizon), dtype=np.float32)
        return encode(played, self._spec(self.version), zero, self.config.codec.discount).counters.baseline()

    def _held_out(self, policy: Policy, advance: Advance) -> Entry:
        return stats_of(self._play(policy, self.plan.held_out, "held-out", advance=advance))

    def _teacher_games(self) -> Sequence[GameId]:
        return self.plan.held_out[: self.config.games.held_out_teacher or None]

    # Bookkeeping

    def _spec(self, version: str) -> VectorSpec:
        codec = self.config.codec
        return VectorSpec(
            codec.name, DIMENSION, VOCABULARY, version, self.plan.families, self.plan.horizon,
            codec.clipping_norm, codec.fisher_norm,
        )  # fmt: skip

    def _manifest(
        self, version: str, cycle: int, learned: Sequence[Mapping[str, Any]], cohort: int, gate: Mapping[str, Any]
    ) -> Manifest:
        codec = self.config.codec.name
        return Manifest(version, self.version, self.learner.base, cycle, codec, tuple(learned), cohort, gate)

    def _promote(self, adapter: Adapter, manifest: Manifest) -> None:
        save_version(self.out / "versions", manifest, adapter, self.learner)
        self.adapter, self.version = adapter, manifest.version

    def _as_before(self) -> Entry:
        """Results of the version that stays."""
        last = self.summary["cycles"][-1]
        return {"held_out": {**last["held_out"], "families": last["families"]}}

    def _finish(self, cycle: int, entry: Entry) -> None:
        """Complete the cycle's entry, log it and rewrite the summary."""
        families = entry["held_out"]["families"]
        entry = {
            "cycle": cycle, "version": self.version, **entry, "held_out": without_families(entry["held_out"]),
            "families": families, "adapter_bytes": sum(array.nbytes for array in self.adapter.values()),
            "seconds": seconds_by_phase(read_events(self.out / "events.jsonl"), cycle),
        }  # fmt: skip
        self.log.emit("decision", cycle=cycle, decision=entry["decision"], reason=entry["reason"], version=self.version)
        self.log.emit("cycle_finished", cycle=cycle, entry=entry)
        self.summary["cycles"].append(entry)
        write_summary(self.out, self.summary)

    def _emit_start(self) -> None:
        names = ("scenario", "seed", "engine", "config")
        config = self.config
        self.log.emit(
            "run_started", clients=config.clients, cycles=config.cycles, **{name: self.summary[name] for name in names}
        )


def _turns(trajectories: Sequence[Trajectory]) -> list[Turn]:
    return [turn for trajectory in trajectories for turn in trajectory.turns]


def _named(arrays: Adapter, prefix: str) -> dict[str, Any]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _part(arrays: Adapter, prefix: str) -> dict[str, Any]:
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
