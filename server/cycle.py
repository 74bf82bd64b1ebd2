"""The server's half of a cycle: context, distillation, gate, promotion, evaluation; every phase is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.context import TeacherContext
from ..codecs.tactics.coordinates import DIMENSION
from ..codecs.tactics.policy import TacticsPolicy
from ..games.player import Advance
from ..games.prepare import prepare
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.experience import Aggregate, ExperienceVector
from ..protocol.fleet.membership import keys_folder
from ..protocol.messages import PlayRequest
from ..protocol.play import Trajectory, turns_of
from ..protocol.versions import Manifest
from ..strategies.consolidator import Traffic
from .evaluation import summarise
from .events import EventLog, read_events, seconds_by_phase
from .exchanges import Current, Exchanges
from .fleet import owner_key
from .floors import play_floors
from .game_plan import GameId, GamePlan
from .gate import Trial, Verdict, candidate_holds, context_helps
from .learner import Adapter, Consolidation, Learner
from .mixture import Mixture, lessons
from .phases import Outcome, Phases
from .public import PublicGames
from .registry import save_version
from .safeguards import RunSafeguards
from .summary import Entry, stats_of, without_families, write_summary

AVERAGE = "average"


class Cycles:
    """Implements `fedoel.strategies.consolidator.Consolidator`.

    Between cycles it carries the current version and its trial on the gate's games; both are rebuilt from the phases on
    disk when a run is resumed.
    """

    def __init__(
        self,
        config: RunConfig,
        plan: GamePlan,
        learner: Learner,
        log: EventLog,
        cache: Path,
        engine: str,
        secure: bool = False,
    ) -> None:
        self.config, self.learner, self.log, self.cache = config, learner, log, cache
        self.plan, self.out = plan, Path(config.out)
        self.phases = Phases(self.out, log)
        self.safeguards = RunSafeguards(config)
        self.summary: Entry = {
            "scenario": config.name, "seed": config.seed, "engine": engine, "private": self.safeguards.noisy,
            "privacy": self.safeguards.describe(secure), "plaintext": config.privacy.allow_plaintext,
            "config": config.to_flat(), "floors": {}, "cycles": [],
        }  # fmt: skip
        self.current = Current("", {})
        self.public = PublicGames(plan, cache)
        self.exchanges = Exchanges(config, self.public, learner, self.phases, self.safeguards)

    # Cycle 0

    def start(self) -> None:
        """Make the warm start, the floors, and the first evaluation."""
        self._emit_start()
        games = (*self.plan.rehearsal, *self.plan.gate, *self.plan.measured)
        # Other processes make the games while this one loads the model.
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(prepare, games, self.cache)
            with self.log.phase(0, "model"):
                self.learner.load()
            with self.log.phase(0, "games"):
                made.result()
        first = self.phases.run(0, "warm-start", self._warm_start, self.config.warm_start.steps)
        self._promote(_part(first.arrays, "adapter"), self._manifest(first.values["version"], 0, [], 0, {}))
        self.summary["floors"] = self.phases.run(0, "floors", self._floors, len(self.plan.measured)).values
        result = self.phases.run(0, "evaluate", self._evaluate_first, len(self.plan.measured) + len(self.plan.gate))
        self.trial, self.gate_stats = Trial.from_arrays(result.arrays), result.values["gate"]
        self._finish(0, {
            "decision": "warm-start",
            "reason": "uniform play over the admissible commands",
            **{name: result.values[name] for name in ("held_out", "transfer", "probes")},
            "teacher": without_families(result.values["held_out"]), "gate": None, "lessons": [], "kl": 0.0,
            "choices": [], "uplink_bytes": 0.0, "downlink_bytes": 0.0, "accepted": 0, "refused": {},
        })  # fmt: skip

    def _warm_start(self, advance: Advance) -> Outcome:
        uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, dtype=np.float32))
        played = self.public.play(uniform, self.plan.rehearsal, "uniform")
        adapter = self.learner.warm_start(turns_of(played), advance)
        version = self.learner.policy(adapter).version
        return Outcome({"version": version}, _named(adapter, "adapter"))

    def _floors(self, advance: Advance) -> Outcome:
        def play(games: Sequence[GameId]) -> dict[str, list[Trajectory]]:
            return play_floors(games, self.plan.streams("held-out", len(games)), self.cache, advance)

        played, transfer = play(self.plan.held_out), {name: play(games) for name, games in self.plan.transfer.items()}
        return Outcome({
            floor: {**stats_of(own), "transfer": {name: asdict(summarise(t[floor])) for name, t in transfer.items()}}
            for floor, own in played.items()
        })  # fmt: skip

    def _evaluate_first(self, advance: Advance) -> Outcome:
        policy = self.learner.policy(self.current.adapter, measured=True)
        played = self.public.play(policy, self.plan.gate, "gate", advance=advance)
        values = {**self._measure(policy, advance), "gate": without_families(stats_of(played))}
        return Outcome(values, Trial.of(played).to_arrays())

    # The exchanges with the cohort

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Ask for the experience of the current version."""
        return self.exchanges.request(self.current, cycle, exchange)

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether this exchange's aggregate is on disk already."""
        return self.exchanges.collected(cycle, exchange)

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep the aggregate, or that there is none."""
        self.exchanges.collect(cycle, exchange, aggregate, traffic)

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange."""
        return self.exchanges.collected_before(self.current, cycle, exchange)

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """What the server learned itself from its rehearsal in this exchange."""
        return self.exchanges.reference(self.current, cycle, exchange)

    # The cycle itself

    def consolidate(self, cycle: int) -> None:
        """Turn what was collected into the next version, or say why not."""
        entry = self._received(cycle)
        if not self.exchanges.cohort(cycle):
            reason = "no client sent a vector that could be used"
            self._finish(cycle, {**entry, **self._as_before(), "decision": "no-experience", "reason": reason})
            return
        self._finish(cycle, {**entry, **self._learn(cycle)})

    def adopt(self, cycle: int, adapter: Adapter) -> None:
        """Make what devices have trained themselves the next version, without distillation or gate: a baseline."""
        made = self.phases.run(cycle, AVERAGE, lambda advance: self._averaged(adapter))
        entry = self._received(cycle)
        devices = entry["accepted"]
        self._promote(_part(made.arrays, "adapter"), self._manifest(made.values["version"], cycle, [], devices, {}))
        result = self.phases.run(cycle, "evaluate", self._evaluate, len(self.plan.measured))
        reason = f"weights of {devices} devices, whatever they play"
        self._finish(cycle, {**entry, **result.values, "decision": "averaged", "reason": reason})

    def adopted(self, cycle: int) -> Adapter | None:
        """Return what was adopted in a cycle that is on disk."""
        if not self.phases.finished(cycle, AVERAGE):
            return None
        return _part(self.phases.load(cycle, AVERAGE).arrays, "adapter")

    def _received(self, cycle: int) -> Entry:
        """Begin a cycle's entry: what came in, and nothing learned yet."""
        traffic = asdict(self.exchanges.traffic(cycle))
        self.log.emit("traffic", cycle=cycle, **traffic)
        return {**traffic, "gate": None, "teacher": None, "lessons": [], "kl": 0.0, "choices": []}

    def _averaged(self, adapter: Adapter) -> Outcome:
        return Outcome({"version": self.learner.policy(adapter).version}, _named(adapter, "adapter"))

    def _learn(self, cycle: int) -> Entry:
        mixture, choices = self._choose(cycle, self.exchanges.mixture(self.current, cycle))
        mixture, tried, helps = self._search(cycle, mixture, [choice["name"] for choice in choices])
        entry: Entry = {
            "lessons": self._said(mixture), "kl": mixture.kl, "choices": choices,
            "teacher": tried.values["held_out"], "gate": {**tried.values["gate"], "candidate": None},
        }  # fmt: skip
        self.log.emit("lessons", cycle=cycle, lessons=entry["lessons"])
        if not helps.passed:
            return {**entry, **self._as_before(), "decision": "no-gain", "reason": helps.reason}
        made = self.phases.run(
            cycle, "distil", lambda advance: self._distil(cycle, mixture, advance), self.config.distil.steps
        )
        entry["views"] = made.values["views"]
        candidate = _part(made.arrays, "adapter")
        judged = self.phases.run(cycle, "gate", lambda advance: self._judge(candidate, advance), len(self.plan.gate))
        entry["gate"] = {**entry["gate"], **judged.values["gate"]}
        trial = Trial.from_arrays(judged.arrays)
        holds = candidate_holds(self.trial, trial)
        if not holds.passed:
            return {**entry, **self._as_before(), "decision": "rejected", "reason": holds.reason}
        gate = {**entry["gate"], "reason": holds.reason}
        manifest = self._manifest(made.values["version"], cycle, entry["lessons"], self.exchanges.cohort(cycle), gate)
        self._promote(candidate, manifest)
        self.trial, self.gate_stats = trial, entry["gate"]["candidate"]
        result = self.phases.run(cycle, "evaluate", self._evaluate, len(self.plan.measured))
        return {**entry, **result.values, "decision": "promoted", "reason": f"{helps.reason}; {holds.reason}"}

    def _search(self, cycle: int, mixture: Mixture, names: Sequence[str]) -> tuple[Mixture, Outcome, Verdict]:
        """Try a context on the gate's games, and halve it while it does not help; one that was chosen there stays.

        Public games only: however often they are played, devices give away nothing more.
        """
        games = len(self.plan.gate) + len(self._teacher_games())
        stays = names or not mixture.moves
        for halving in range(1 if stays else self.config.context.halvings + 1):
            if halving:
                mixture = self.exchanges.halved(self.current, cycle, mixture, halving)
                names = [f"1/{2**halving} of it", *(names or ["all of it"])]
            phase = f"teacher-half-{halving}" if halving else "teacher"
            tried = self.phases.run(cycle, phase, partial(self._teacher, mixture), games)
            helps = context_helps(self.trial, Trial.from_arrays(tried.arrays), names)
            if helps.passed:
                break
        return mixture, tried, helps

    def _choose(self, cycle: int, mixture: Mixture) -> tuple[Mixture, list[Entry]]:
        """Let the gate's games choose among the contexts that a single one can become; also return all, best first."""
        if not self.exchanges.codec.has_candidates or len(mixture.contexts) > 1:
            return mixture, []
        (context,) = mixture.contexts
        found = self.phases.run(cycle, "choose", lambda advance: self._best(cycle, context, advance))
        choices = found.values["choices"]
        return Mixture.of(replace(context, weights=found.arrays["weights"], kl=choices[0]["kl"])), choices

    def _best(self, cycle: int, context: TeacherContext, advance: Advance) -> Outcome:
        codec, policy = self.exchanges.codec, self.learner.policy(self.current.adapter)
        own = turns_of(self.exchanges.rehearsed(self.current, cycle))
        found = codec.candidates(policy, own, context, self.config.context)
        player = self.learner.policy(self.current.adapter, measured=True)
        entries: list[Entry] = []
        for choice in found:
            played = self.public.play(codec.teacher(player, choice.context), self.plan.gate, "gate", advance=advance)
            merit = float(Trial.of(played).merits.mean())
            entries.append({"name": choice.name, "kl": choice.context.kl, "merit": merit})
        order = sorted(range(len(found)), key=lambda place: -entries[place]["merit"])  # the first of equals
        return Outcome({"choices": [entries[place] for place in order]}, {"weights": found[order[0]].context.weights})

    def _said(self, mixture: Mixture) -> list[dict[str, Any]]:
        """Lessons of a context in words, or of each with its number."""
        said = [self.exchanges.codec.lessons(context) for context in mixture.contexts]
        if len(said) == 1:
            return [asdict(lesson) for lesson in said[0]]
        return [{**asdict(each), "cluster": place} for place, some in enumerate(said, start=1) for each in some]

    def _teachers(self, mixture: Mixture, policy: Policy) -> list[Policy]:
        """Return the policy with each of the contexts."""
        return [self.exchanges.codec.teacher(policy, context) for context in mixture.contexts]

    def _led(
        self,
        mixture: Mixture,
        teachers: Sequence[Policy],
        games: Sequence[GameId],
        purpose: str,
        cycle: int,
        advance: Advance = lambda played: None,
    ) -> list[Trajectory]:
        """Play games by the teachers, each with the context that was drawn for it."""
        chosen = mixture.draw(games, self.plan.streams(purpose, len(games), cycle))
        return self.public.play_each(teachers, chosen, games, purpose, cycle, advance)

    def _teacher(self, mixture: Mixture, advance: Advance) -> Outcome:
        teachers = self._teachers(mixture, self.learner.policy(self.current.adapter, measured=True))
        played = self._led(mixture, teachers, self.plan.gate, "gate", 0, advance)
        held_out = self._led(mixture, teachers, self._teacher_games(), "held-out", 0, advance)
        gate = {"current": self.gate_stats, "teacher": without_families(stats_of(played))}
        return Outcome({"held_out": stats_of(held_out), "gate": gate}, Trial.of(played).to_arrays())

    def _distil(self, cycle: int, mixture: Mixture, advance: Advance) -> Outcome:
        """Train on states that the student visits without the context, and on those that the teacher leads to.

        Off-policy, the baseline, only where the teacher leads.
        """
        codec, policy = self.exchanges.codec, self.learner.policy(self.current.adapter)
        self.exchanges.rehearse_all(self.current, cycle)
        own = self.exchanges.rehearsed(self.current, cycle) if self.config.distil.on_policy else []
        unders = [partial(codec.teacher, context=context) for context in mixture.contexts]
        teachers, games, purpose = [under(policy) for under in unders], self.plan.rehearsal, "rehearsal-teacher"
        chosen = mixture.draw(games, self.plan.streams(purpose, len(games), cycle))
        led = self._led(mixture, teachers, games, purpose, cycle)
        made_of = lessons(codec, policy, mixture, own, led, chosen)
        task = Consolidation(
            mixture.merged(), made_of.turns, made_of.targets, [teachers[place] for place in made_of.drawn],
            [unders[place] for place in made_of.drawn], made_of.tilts, self.plan.training_seed(cycle),
        )  # fmt: skip
        made = self.learner.distil(self.current.adapter, task, advance)
        version = self.learner.policy(made.adapter).version
        return Outcome({"version": version, "views": dict(made.views)}, _named(made.adapter, "adapter"))

    def _judge(self, candidate: Adapter, advance: Advance) -> Outcome:
        played = self.public.play(
            self.learner.policy(candidate, measured=True), self.plan.gate, "gate", advance=advance
        )
        return Outcome({"gate": {"candidate": without_families(stats_of(played))}}, Trial.of(played).to_arrays())

    def _evaluate(self, advance: Advance) -> Outcome:
        return Outcome(self._measure(self.learner.policy(self.current.adapter, measured=True), advance))

    def _measure(self, policy: Policy, advance: Advance) -> Entry:
        """What is reported of a version: held-out games, those of kinds that nobody learns from, and probes."""

        def play(games: Sequence[GameId]) -> list[Trajectory]:
            return self.public.play(policy, games, "held-out", advance=advance)

        held_out = stats_of(play(self.plan.held_out))
        transfer = {name: asdict(summarise(play(games))) for name, games in self.plan.transfer.items()}
        return {"held_out": held_out, "transfer": transfer, "probes": self.learner.probe(self.current.adapter)}

    def _teacher_games(self) -> Sequence[GameId]:
        return self.plan.held_out[: self.config.games.held_out_teacher or None]

    # Bookkeeping

    def _manifest(
        self, version: str, cycle: int, learned: Sequence[Mapping[str, Any]], cohort: int, gate: Mapping[str, Any]
    ) -> Manifest:
        codec = self.config.codec.name
        return Manifest(version, self.current.version, self.learner.base, cycle, codec, tuple(learned), cohort, gate)

    def _promote(self, adapter: Adapter, manifest: Manifest) -> None:
        save_version(self.out / "versions", manifest, adapter, self.learner, owner_key(keys_folder(self.config)))
        self.current = Current(manifest.version, adapter)

    def _as_before(self) -> Entry:
        """Results of the version that stays."""
        last = self.summary["cycles"][-1]
        held_out = {**last["held_out"], "families": last["families"]}
        return {"held_out": held_out, "transfer": last["transfer"], "probes": last["probes"]}

    def _finish(self, cycle: int, entry: Entry) -> None:
        """Complete the cycle's entry, log it and rewrite the summary."""
        families = entry["held_out"]["families"]
        entry = {
            "cycle": cycle, "version": self.current.version, **entry, "held_out": without_families(entry["held_out"]),
            "epsilon": self.safeguards.spent(cycle), "families": families,
            "adapter_bytes": sum(array.nbytes for array in self.current.adapter.values()),
            "seconds": seconds_by_phase(read_events(self.out / "events.jsonl"), cycle),
        }  # fmt: skip
        self.log.emit(
            "decision", cycle=cycle, decision=entry["decision"], reason=entry["reason"], version=self.current.version
        )
        self.log.emit("cycle_finished", cycle=cycle, entry=entry)
        self.summary["cycles"].append(entry)
        write_summary(self.out, self.summary)

    def _emit_start(self) -> None:
        names = ("scenario", "seed", "engine", "config")
        config = self.config
        self.log.emit(
            "run_started", clients=config.clients, cycles=config.cycles, **{name: self.summary[name] for name in names}
        )


def _named(arrays: Adapter, prefix: str) -> dict[str, Any]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _part(arrays: Adapter, prefix: str) -> dict[str, Any]:
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
