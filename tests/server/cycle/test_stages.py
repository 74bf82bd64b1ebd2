"""Every stage by itself: what it makes of what it is given, and that it is read back instead of being done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedoel.codecs.context import MOST_LENGTHENED, TeacherContext
from fedoel.codecs.encoder import Parameters
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.records.summary import Stats
from fedoel.server.app import prepare
from fedoel.server.cycle.contender import Contender, Version
from fedoel.server.cycle.context import CONTEXT, contexts_of, halved, lengthened
from fedoel.server.cycle.distil import TRAINED, Trained, distil
from fedoel.server.cycle.judge import judge
from fedoel.server.cycle.measure import measure
from fedoel.server.cycle.mixture import Mixture
from fedoel.server.cycle.promote import promote
from fedoel.server.cycle.run import Run
from fedoel.server.cycle.search import search
from fedoel.server.cycle.server import CycleServer
from fedoel.server.events import Advance
from fedoel.server.gate import Differences, Evidence, Trial, Verdict
from fedoel.server.learner import DistillationTask, Distilled
from fedoel.server.public.rollouts import GamesPublic, PublicRollouts
from fedoel.strategies.server_side import AskFleet, Traffic

STATS = Stats(win_rate=0.5, low=0.2, high=0.8, episodes=3, score=0.5, turns_per_win=2.0, tokens_per_win=9.0)


@dataclass
class FakeGate:
    """A gate that plays nothing: every contender has the merit that is said here, in turn."""

    merits: list[float] = field(default_factory=list)
    contenders: list[Contender] = field(default_factory=list)
    helps: bool = True
    holds: bool = True
    episodes: int = 3
    blocks: int = 1
    sure: bool = True
    paused: bool = False
    seen: list[int] = field(default_factory=list)

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> FakeGate:
        return self

    def evidence(self, cycle: int, current: Version, contender: Contender, block: int, advance: Advance) -> Evidence:
        self.seen.append(block)
        self.contenders.append(contender)
        merits = np.full(3, self.merits[len(self.contenders) - 1] if self.merits else 0.0)
        return Evidence(Trial(merits, merits > 0, np.array(["coin"] * 3)), STATS)

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        return Verdict(self.helps, f"tried {len(choices)}", self.sure, self.paused)

    def candidate_holds(self, differences: Differences) -> Verdict:
        return Verdict(self.holds, "judged", self.sure)


def nobody(request: PlayRequest, part: int) -> None:
    """A fleet in which nobody answers."""


def with_gate(server: CycleServer, gate: FakeGate) -> Run:
    return replace(server.run, gate=gate)


def rollouts_of(server: CycleServer, cycle: int = 1) -> PublicRollouts:
    return cast(PublicRollouts, server.run.public.states(server.run, server.state.version, cycle))


def context(server: CycleServer, weight: float) -> TeacherContext:
    dimension = server.run.codec.encoder.dimension
    return TeacherContext(np.full(dimension, weight, np.float32), np.ones(dimension, np.float32), 0.1)


def collect(server: CycleServer, cycle: int = 1, gradient: float = 5.0) -> None:
    """Put one device's vector into an exchange."""
    server.request(cycle, 1)
    spec = server.run.spec(server.state.version.name)
    rng = np.random.default_rng(0)
    vector = {"gradient": gradient * rng.normal(size=spec.dimension), "fisher": np.ones(spec.dimension)}
    server.collect(cycle, 1, Aggregate(ExperienceVector.from_parts(spec, vector), 2), Traffic(1.0, 1.0, 2, {}))


def test_before_its_start_a_server_has_no_state(config: Any, cache: Path) -> None:
    with pytest.raises(FedoelError, match="has not started"):
        _ = prepare(config, cache)[1].state


def test_contexts_begin_with_the_bare_policy_and_stay_in_the_trust_region(server: CycleServer) -> None:
    collect(server)
    bare, stepped = contexts_of(server.run, rollouts_of(server), 1)
    assert not bare.weights.any() and bare.kl == 0
    assert 0 < stepped.kl <= server.run.config.context.max_kl + 1e-6


def test_an_exchange_that_gave_nothing_leaves_the_context_as_it_was(server: CycleServer) -> None:
    server.request(1, 1)
    server.collect(1, 1, None, Traffic(0.0, 0.0, 0, {}))
    bare, same = contexts_of(server.run, rollouts_of(server), 1)
    assert same is bare


def test_a_context_is_read_back_and_not_stepped_again(server: CycleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(server)
    first = contexts_of(server.run, rollouts_of(server), 1)[1]
    monkeypatch.setattr(PublicRollouts, "of", None)  # nothing may be played
    again = contexts_of(server.run, rollouts_of(server), 1)[1]
    assert np.array_equal(first.weights, again.weights) and first.kl == again.kl


def test_half_a_context_has_half_the_weights_and_about_a_quarter_of_the_divergence(server: CycleServer) -> None:
    collect(server, gradient=0.2)
    rollouts = rollouts_of(server)
    whole = contexts_of(server.run, rollouts, 1)[1]
    half = halved(server.run, rollouts, Mixture.of(whole), 1).contexts[0]
    assert np.allclose(half.weights, whole.weights / 2)
    assert half.kl == pytest.approx(whole.kl / 4, rel=0.3)


@pytest.mark.parametrize(("target", "factor"), [(0.0, 1.0), (0.02, None), (1e9, MOST_LENGTHENED)])
def test_a_finished_context_is_lengthened_to_a_divergence(
    server: CycleServer, target: float, factor: float | None
) -> None:
    collect(server, gradient=0.2)
    config = replace(server.run.config, context=replace(server.run.config.context, teacher_kl=target))
    run, rollouts = replace(server.run, config=config), rollouts_of(server)
    whole = contexts_of(run, rollouts, 1)[1]
    longer = lengthened(run, rollouts, Mixture.of(whole)).contexts[0]
    times = float(np.linalg.norm(longer.weights) / np.linalg.norm(whole.weights))
    assert times == pytest.approx(factor) if factor else 1 < times < MOST_LENGTHENED
    assert factor or longer.kl == pytest.approx(target, rel=0.1)
    assert np.array_equal(longer.fisher, whole.fisher)
    again = lengthened(run, rollouts, Mixture.of(whole)).contexts[0]
    assert np.array_equal(longer.weights, again.weights) and longer.kl == again.kl


def test_nothing_is_not_lengthened(server: CycleServer) -> None:
    config = replace(server.run.config, context=replace(server.run.config.context, teacher_kl=1.0))
    bare = Mixture.of(context(server, 0.0))
    assert lengthened(replace(server.run, config=config), rollouts_of(server), bare).contexts == bare.contexts


def test_prompts_are_new_games_in_every_cycle_that_the_teacher_answers(
    server: CycleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = cast(GamesPublic, server.run.public)
    plan = replace(public.games.plan, prompts_per_cycle=5)
    first, second = plan.prompts(1), plan.prompts(2)
    assert len({*first, *second, *plan.rehearsal}) == 10 + len(plan.rehearsal)
    tasks = list[DistillationTask]()

    def recorded(adapter: Any, task: DistillationTask, advance: Any) -> Distilled:
        tasks.append(task)
        return Distilled(adapter, {})

    monkeypatch.setattr(server.run.learner, "distil", recorded)
    contexts = Mixture.of(context(server, 1.0))
    for other in (public, GamesPublic(replace(public.games, plan=plan))):
        distil(server.run, other.states(server.run, server.state.version, len(tasks) + 1), contexts)
    without, more = tasks
    assert len(more.turns) > len(without.turns) and not {len(t.situation.admissible) for t in more.turns} & {1}
    teacher = server.run.codec.teacher(server.run.learner.policy(server.state.version.adapter), contexts.contexts[0])
    for turn, target in zip(more.turns[-3:], more.targets[-3:], strict=True):
        assert np.allclose(teacher.score([turn.situation])[0], target)


@pytest.mark.parametrize(("helps", "tries"), [(True, 1), (False, 3)])
def test_search_halves_until_a_context_helps(server: CycleServer, helps: bool, tries: int) -> None:
    gate = FakeGate(helps=helps)
    contexts = Mixture.of(context(server, 1.0))
    found = search(with_gate(server, gate), server.state, rollouts_of(server), contexts)
    assert found.verdict.passed is helps and len(gate.contenders) == tries
    tried = [contender.contexts for contender in gate.contenders]
    assert [one.contexts[0].weights[0] for one in tried if one] == [1 / 2**n for n in range(tries)]
    assert found.contexts is tried[-1]


def test_search_tries_no_half_while_promotion_is_paused(server: CycleServer) -> None:
    gate = FakeGate(helps=False, paused=True)
    found = search(with_gate(server, gate), server.state, rollouts_of(server), Mixture.of(context(server, 1.0)))
    assert not found.verdict.passed and len(gate.contenders) == 1


def test_a_gate_that_is_not_sure_plays_further_blocks_with_both_policies_and_remembers_them(
    server: CycleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, contexts = FakeGate(helps=False, sure=False, blocks=3), Mixture.of(context(server, 1.0))
    run = replace(
        with_gate(server, gate),
        config=replace(server.run.config, context=replace(server.run.config.context, halvings=0)),
    )
    found = search(run, server.state, rollouts_of(server), contexts)
    assert gate.seen == [1, 2, 2, 3, 3]  # the teacher's first block, then teacher and current version in turn
    assert [one.contexts is None for one in gate.contenders] == [False, False, True, False, True]
    assert (found.current.blocks, found.tried.evidence.blocks, found.tried.evidence.stats.episodes) == (3, 3, 9)
    gate.seen.clear()
    candidate = distil(run, rollouts_of(server), contexts)
    judged = judge(run, replace(server.state, evidence=found.current), 1, candidate)
    assert gate.seen == [1, 2, 3] and judged.current is found.current and judged.evidence.blocks == 3
    gate.seen.clear()
    assert search(run, server.state, rollouts_of(server), contexts).current.stats == found.current.stats
    assert gate.seen == []  # read back


def test_search_does_not_halve_nothing(server: CycleServer) -> None:
    gate = FakeGate(helps=False)
    search(with_gate(server, gate), server.state, rollouts_of(server), Mixture.of(context(server, 0.0)))
    assert len(gate.contenders) == 1


def test_a_candidate_plays_as_its_teacher_and_is_judged_without_the_context(server: CycleServer) -> None:
    gate, contexts = FakeGate(holds=False), Mixture.of(context(server, 0.5))
    run = with_gate(server, gate)
    candidate = distil(run, rollouts_of(server), contexts)
    assert np.allclose(candidate.adapter["weights"], 0.5)  # for this player, distillation is exact
    assert not judge(run, server.state, 1, candidate).verdict.passed
    assert gate.contenders[0].contexts is None
    assert gate.contenders[0].policies[0].version == candidate.version
    judge(run, server.state, 1, candidate)
    assert len(gate.contenders) == 1  # the second time, evidence is read from disk


@pytest.mark.parametrize(("merits", "holds", "tried"), [
    ([-1.0, -1.0, -1.0], False, [1.0, 0.5, 0.25]),  # loses, and so do both halves
    ([0.0], False, [1.0]),  # refused without a loss: a half would gain even less
    ([-1.0], True, [1.0]),  # loses too little to be refused
])  # fmt: skip
def test_a_candidate_that_loses_is_tried_again_nearer_to_the_current_version(
    server: CycleServer, merits: list[float], holds: bool, tried: list[float]
) -> None:
    gate = FakeGate(merits=merits, holds=holds)
    config = server.run.config
    run = replace(with_gate(server, gate), config=replace(config, distil=replace(config.distil, halvings=2)))
    start = server.state.version.adapter["weights"]
    adapter = {"weights": np.full_like(start, 1.0) + start}
    judged = judge(run, server.state, 1, Trained(run.learner.policy(adapter).version, adapter))
    assert [one.adapter["weights"][0] - start[0] for one in gate.contenders] == tried
    assert judged.candidate.version == gate.contenders[-1].policies[0].version
    assert judged.verdict.reason == ("1/4 of the way to the candidate: judged" if len(tried) > 1 else "judged")
    assert np.array_equal(judged.candidate.adapter["weights"], gate.contenders[-1].adapter["weights"])


def test_a_promoted_version_is_signed_and_measured(server: CycleServer) -> None:
    run, adapter = server.run, {"weights": np.full_like(server.state.version.adapter["weights"], 2.0)}
    trained = Trained(run.learner.policy(adapter).version, adapter)
    version = promote(run, trained, server.state.version.name, 1, cohort=2)
    assert (run.folder / "versions" / version.name / "manifest.sig").exists()
    measured = measure(run, version, 1)
    assert measured.held_out.episodes == run.config.games.held_out and measured.transfer == {}


def test_a_cycle_that_is_rejected_keeps_the_version_and_says_why(server: CycleServer) -> None:
    server.run = with_gate(server, FakeGate(holds=False))
    before, first = server.state.version, server.state.record
    collect(server)
    server.consolidate(1, nobody)
    last = server.state.record
    assert (last.decision, last.reason, last.version) == ("rejected", "judged", before.name)
    assert server.state.version is before and last.held_out == first.held_out


def test_a_cycle_without_experience_says_so(server: CycleServer) -> None:
    server.request(1, 1)
    server.collect(1, 1, None, Traffic(0.0, 0.0, 0, {"late": 2}))
    server.consolidate(1, nobody)
    last = server.state.record
    assert last.decision == "no-experience" and last.refused == {"late": 2}


def test_kept_outcomes_are_read_as_they_were_written(server: CycleServer) -> None:
    kept = replace(context(server, 0.25), words=("one", "two"))
    read = CONTEXT.read(CONTEXT.write(kept))
    assert np.array_equal(read.weights, kept.weights) and (read.kl, read.words) == (kept.kl, kept.words)
    trained = Trained("v", {"weights": np.ones(3)}, {"without_context": 0.5})
    again = TRAINED.read(TRAINED.write(trained))
    assert (again.version, again.views) == ("v", trained.views) and np.array_equal(again.adapter["weights"], np.ones(3))
