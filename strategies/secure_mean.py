"""The strategy for deployment: secure aggregation (Bonawitz et al. 2017; Bell et al. 2020) with distributed noise.

The server learns the sum of the cohort's vectors and no single vector. An exchange takes one round of the protocol,
which has five phases, each with one message to every device. A device that drops out in any phase is not in the sum.
If too few devices remain, the round fails closed and the run continues without an aggregate.

A device that lies about the shares of masks cannot stop a run. Wrong shares are corrected. That a round cannot be
opened because shares were garbage comes out before anybody helps to open it: the round is made again without the
devices that may be at fault, and has spent no budget. Devices that have lied for certain are asked no more in this run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, SecureSumError, VectorError
from ..protocol.experience import ROUNDING, Aggregate, Contribution, ExperienceVector, Floats, VectorSpec, total
from ..protocol.fleet.notice import Notice
from ..protocol.messages import PlayRequest, copy_of, records_bytes, request_to_records, with_notice
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.privacy.published import public_variance, with_public_noise
from ..protocol.secagg.disputes import Disputes
from ..protocol.secagg.graph import Graph, check_graph, choose_graph, least_minimum
from ..protocol.secagg.messages import ACTIONS, RECORD, Step, first_step, reply_from_records, subject
from ..protocol.secagg.server import ServerRound
from ..protocol.secagg.terms import Terms
from ..protocol.trials import SMALLEST, is_possible, is_trial
from .delivery import RetryWindow, message_to, named, send_and_receive
from .experience import log
from .mean import BudgetStrategy
from .replies import GONE, OTHER_RELEASE, OUT, SILENT, TIRED, failure, of_this_release
from .server_side import Safeguards, Traffic
from .stopped import is_stopped

FAILED, UNCLIPPED, IMPOSSIBLE = "round failed", "sum too long", "impossible answers"
LIES = {UNCLIPPED: "has not clipped", IMPOSSIBLE: "has sent what no game can give"}
LIAR, DOUBTFUL = "lies about shares", "in dispute about shares"
AGAIN = 3  # rounds that are made again at once, each without the devices that made the one before fail
ATTEMPTS = 2  # phases are idempotent: a device that did not reply in time gets the same message once more


@dataclass
class Tally:
    """Bytes to and from each node, refusals by reason, and whether budget was spent, summed over a round's phases.

    `done` are the nodes that have contributed to this exchange before, in a round that failed, or take part in no more
    rounds of it: they are out of it.
    `liars` are those that have lied about shares, and `doubtful` those one of two of which has.
    """

    down: Counter[int] = field(default_factory=Counter)
    up: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    spent: bool = False
    done: set[int] = field(default_factory=set)
    liars: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)

    @property
    def out(self) -> set[int]:
        """Nodes that are asked no more in this exchange."""
        return self.done | self.accused

    @property
    def accused(self) -> set[int]:
        """Nodes that have lied about shares, or one of two of which has."""
        return self.liars | self.doubtful

    def accuse(self, disputes: Disputes, nodes: Sequence[int]) -> None:
        """Take the devices that a round's disputes name; `nodes` are those of its positions."""
        liars, doubtful = ({nodes[p] for p in named} for named in (disputes.liars(), disputes.doubtful()))
        self.liars |= liars
        self.doubtful |= doubtful
        if liars:
            log(WARNING, "exchange: %s %s", named(sorted(liars)), LIAR)
        if doubtful:
            log(WARNING, "exchange: one of two lies, or the way between them is broken: %s", named(sorted(doubtful)))

    def traffic(self, accepted: int) -> Traffic:
        """Return mean bytes per device that received a message."""
        devices = max(1, len(self.down))
        faults = {LIAR: len(self.liars), DOUBTFUL: len(self.doubtful - self.liars)}
        refused = self.refused + Counter(faults)
        return Traffic(self.up.total() / devices, self.down.total() / devices, accepted, dict(sorted(refused.items())))


@dataclass(frozen=True, slots=True)
class _Phase:
    """One phase of a round: the step for each position in the cohort, and the function that consumes its reply.

    `play_request` is sent along with every step, in the phase in which devices play.
    """

    name: str
    steps: Mapping[int, Step]
    take: Callable[[int, bytes], None]
    timeout: float
    play_request: RecordDict | None = None


class SecureMean(BudgetStrategy):
    """The secure sum of the cohort's vectors.

    Parameters
    ----------
    phase_timeout
        Seconds to wait for replies in the phases in which devices do not play.
    """

    mechanisms = frozenset({"none", "distributed"})
    least_of_trial = SMALLEST

    def __init__(self, *arguments: Any, phase_timeout: float = 120.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.phase_timeout = phase_timeout
        self.liars: set[int] = set()

    def check(self, spec: VectorSpec) -> None:
        """Check the privacy plan and the communication graph of the cohort."""
        super().check(spec)
        self.check_graph(self.server.safeguards.sample(spec), spec)

    def check_graph(self, devices: int, spec: VectorSpec) -> None:
        """Refuse a number of devices for which no communication graph is safe from colluders and dropouts."""
        try:
            self.graph(devices, self.plan(spec))
        except SecureSumError as error:
            raise ConfigError(str(error)) from error

    def graph(self, cohort: int, plan: PrivacyPlan) -> tuple[Graph, int]:
        """Return the communication graph of a cohort, and the fewest survivors whose sum is unmasked.

        These are as many as the privacy plan says, or as devices insist on. Raises `SecureSumError` if there is no
        graph that devices accept.
        """
        safeguards = self.server.safeguards
        graph = choose_graph(cohort, safeguards.colluding, safeguards.max_dropout)
        minimum = max(plan.minimum, least_minimum(graph, cohort, safeguards.colluding))
        check_graph(graph, cohort, minimum, safeguards.colluding)
        return graph, minimum

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Raise `VectorError`: secure aggregation reveals no single contribution."""
        raise VectorError("a secure sum has no single contributions")

    def plan(self, spec: VectorSpec, cohort: int | None = None) -> PrivacyPlan:
        """Return the privacy plan of one secure sum; with noise or a staged rollout, of a cohort of this size."""
        return self.server.safeguards.plan(spec, cohort if self._plans_differ else None)

    @property
    def _plans_differ(self) -> bool:
        """Whether each cohort has a plan of its own, so that any that is releasable can be summed."""
        return self.server.safeguards.noisy or self.server.safeguards.staged

    def release(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Run one round of secure aggregation; an exchange whose round fails has no aggregate."""
        cycle, exchange = self.place(server_round)
        tally, request = Tally(), self.server.request(cycle, exchange)
        sums = self.sums(grid, lambda nodes: self.draw(nodes, cycle, exchange), request, timeout, tally)
        sums = _possible(sums, "exchange", tally)
        aggregate = self.combine(server_round, sums, tally) if sums else None
        accepted = aggregate.cohort if aggregate else 0
        self.hand_on(server_round, aggregate, tally.traffic(accepted))
        return MetricRecord({"accepted": accepted, "refused": tally.refused.total()})

    def release_trial(self, grid: Grid, request: PlayRequest, part: int) -> Aggregate | None:
        """Add up the answers to a trial in a secure sum, of each group where there are several."""
        tally = Tally()
        sums = self.sums(grid, lambda nodes: self.draw_trial(nodes, request, part), request, self.timeout, tally)
        possible = _possible(sums, "trial", tally)
        if not possible:
            return None
        cohort, noise = sum(one.cohort for one in possible), sum(one.noise for one in possible)
        return Aggregate(total(one.vector for one in possible), cohort, noise)

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Combine the sums of the groups, at least one, into one aggregate; None if none of them is usable."""
        return sums[0]

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Partition a cohort into groups with a secure sum each; here the cohort is one group."""
        return [cohort]

    def sums(
        self, grid: Grid, draw: Callable[[list[int]], list[int]], request: PlayRequest, timeout: float, tally: Tally
    ) -> list[Aggregate]:
        """Sample a cohort and sum its groups; retry while all sums fail and no privacy budget has been spent.

        Devices that are out of the exchange are left out, since no retry brings them back. A round that liars have made
        fail is made again at once without them.

        Parameters
        ----------
        draw
            Draws the cohort among the nodes that are there.
        """
        retry, again = RetryWindow(self.patience), AGAIN
        while True:
            nodes = self.nodes(grid)
            cohort, sums, accused, out = list[int](), list[Aggregate](), tally.accused, tally.out | self.liars
            if self.server.safeguards.enough(len(nodes)):
                cohort = [node for node in draw(self.server.reached(nodes)) if node not in out]
                if not cohort:
                    return []
                sums = self.secure_sums(grid, self.groups(cohort), request, timeout, tally)
                self.liars |= tally.liars
            else:
                log(WARNING, "exchange: %d nodes are too few of the population to draw a cohort from", len(nodes))
                tally.refused[FAILED] += 1
            if sums or tally.spent or self._is_lost(cohort, request, tally):
                return sums
            at_once = again > 0 and tally.accused > accused
            again -= at_once
            if not (at_once or is_stopped(self.server.safeguards) or retry.wait()):
                return sums
            log(INFO, "exchange: nothing was released; retrying")
            tally.refused.clear()

    def _is_lost(self, cohort: Sequence[int], request: PlayRequest, tally: Tally) -> bool:
        """Whether too few of a cohort can still contribute to the exchange, however often they are asked."""
        out, safeguards = tally.out, self.server.safeguards
        left = sum(node not in out for node in cohort)
        if left == len(cohort):
            return False
        fewest = 0 if self._plans_differ else self.plan(request.spec).minimum
        lost = left < fewest or not safeguards.releasable(left)
        if lost:
            log(WARNING, "exchange: %d devices are out of it, and %d are too few", len(cohort) - left, left)
        return lost

    def secure_sums(
        self, grid: Grid, groups: Sequence[Sequence[int]], request: PlayRequest, timeout: float, tally: Tally
    ) -> list[Aggregate]:
        """Run a round for each group of nodes, all in parallel; groups whose rounds fail closed are omitted."""
        sums: dict[int, Aggregate] = {}
        rounds = {group: self._round(nodes, request, timeout, tally) for group, nodes in enumerate(groups)}
        while rounds:
            phases: dict[int, _Phase] = {}
            for group, group_round in list(rounds.items()):
                try:
                    phases[group] = next(group_round)
                except StopIteration as end:
                    sums[group] = end.value
                except SecureSumError as error:
                    log(WARNING, "exchange: the round fails closed: %s", error)
                    tally.refused[FAILED] += 1
                if group not in phases:
                    del rounds[group]
            _PhaseSender(grid, groups, tally, self.server.safeguards).send(phases)
        return [sums[group] for group in sorted(sums)]

    def _round(
        self, nodes: Sequence[int], request: PlayRequest, timeout: float, tally: Tally
    ) -> Generator[_Phase, None, Aggregate]:
        """Yield the phases of a secure sum over nodes; each phase continues from the replies to the one before."""
        terms, plan = self._terms(len(nodes), request)
        log(INFO, "exchange: secure sum over %d nodes, %d neighbours each", terms.cohort, terms.neighbours)
        state = ServerRound(terms, self.server.safeguards.members)
        try:
            yield from self._phases(state, plan, request, timeout, tally)
            parts, devices = plan.decode(state.total()), len(state.masked)
        finally:
            tally.accuse(state.disputes, nodes)
        if plan.noise_multiplier:
            return self.published(parts, plan, devices, request.spec)
        return Aggregate(ExperienceVector.from_parts(request.spec, parts), devices)

    def published(self, parts: Mapping[str, Floats], plan: PrivacyPlan, devices: int, spec: VectorSpec) -> Aggregate:
        """Return a noisy sum with public numbers in place of those of its cohort (`fedoel.protocol.privacy.published`).

        What is made of it is divided by the number of devices that are drawn on average.
        """
        safeguards, public = self.server.safeguards, self.plan(spec)
        factor, rng = safeguards.public_factor(spec), np.random.default_rng()
        filled = with_public_noise(parts, plan, devices, public, factor, rng)
        noise = public_variance(public, "gradient", factor)
        return Aggregate(ExperienceVector.from_parts(spec, filled), safeguards.sample(spec), noise)

    def _terms(self, cohort: int, request: PlayRequest) -> tuple[Terms, PrivacyPlan]:
        """Return the terms of a round over `cohort` devices that was never begun before, and its privacy plan."""
        safeguards, spec = self.server.safeguards, request.spec
        plan = self.plan(spec, cohort) if safeguards.releasable(cohort) else self.plan(spec)
        if not safeguards.noisy:  # devices that joined after the plan was made can exceed its cohort
            cohort = min(cohort, plan.cohort)
        if not plan.minimum <= cohort <= plan.cohort:
            raise SecureSumError(f"{cohort} devices were drawn, outside the plan's {plan.minimum} to {plan.cohort}")
        (graph, minimum), digest = self.graph(cohort, plan), subject(request, plan)
        run, number = safeguards.begin_round()
        terms = Terms(run, number, cohort, graph.neighbours, graph.threshold, minimum, plan.cells, plan.bits, digest)
        return terms, plan

    def _phases(
        self, state: ServerRound, plan: PrivacyPlan, request: PlayRequest, timeout: float, tally: Tally
    ) -> Iterator[_Phase]:
        """Yield the phases; the budget is spent before anybody is asked for what opens the sum."""
        terms, safeguards, wait = state.terms, self.server.safeguards, self.phase_timeout
        name, signed_list = terms.digest, safeguards.signed_members
        signature = safeguards.sign_terms(terms.to_json().encode())
        yield _Phase("keys", {p: first_step(terms, p, signature) for p in range(terms.cohort)}, state.take_keys, wait)
        state.check_keys()
        steps = {p: Step(name, state.adverts_for(p), signed_list) for p in state.adverts}
        yield _Phase("shares", steps, state.take_shares, wait)
        state.check(state.sealed, terms.threshold + 1)
        play_request = request_to_records(replace(request, log=safeguards.log))
        plan_json = plan.to_json().encode()
        steps = {p: Step(name, state.shares_for(p), plan_json) for p in state.sealed}
        yield _Phase("masked", steps, state.take_masked, timeout, play_request)
        state.check(state.masked)
        state.check_openable(state.masked)
        survivors = state.survivors
        yield _Phase("confirm", {p: Step(name, survivors) for p in state.masked}, state.take_confirmation, wait)
        state.check(state.signatures, terms.threshold)
        state.check_openable(state.signatures)
        safeguards.spend(request.cycle)  # on disk before anything is unmasked
        tally.spent = safeguards.noisy
        steps = {p: Step(name, survivors, state.signatures_for(p)) for p in state.signatures}
        yield _Phase("unmask", steps, state.take_opened, wait)


def _possible(sums: list[Aggregate], where: str, tally: Tally) -> list[Aggregate]:
    """Leave out sums that honest devices cannot have made, where no noise could have done that.

    What such a sum says is a lie, and later cycles would go on adding to it.
    """
    lies = [_lie(one) for one in sums]
    for lie, count in sorted(Counter(filter(None, lies)).items()):
        log(WARNING, "%s: %d of %d sums left out: a device %s", where, count, len(sums), LIES[lie])
        tally.refused[lie] += count
    return [one for one, lie in zip(sums, lies, strict=True) if not lie]


def _lie(one: Aggregate) -> str:
    """Say what is wrong with a sum: a part that is longer than clipped ones can make it, or answers to no trial."""
    spec, parts = one.vector.spec, one.vector.parts()
    if one.noise:
        return ""
    if any(float(np.linalg.norm(p)) > one.cohort * spec.norms[name] * (1 + ROUNDING) for name, p in parts.items()):
        return UNCLIPPED
    return IMPOSSIBLE if is_trial(spec) and not is_possible(one.vector, one.cohort) else ""


@dataclass(frozen=True, slots=True)
class _PhaseSender:
    """Sends the current phase of several groups in one batch; a device is addressed by (group, position in it)."""

    grid: Grid
    groups: Sequence[Sequence[int]]
    tally: Tally
    safeguards: Safeguards
    failed: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # nodes by phase and reason

    def send(self, phases: Mapping[int, _Phase]) -> None:
        """Send each group's phase, and pass usable replies on; devices without one have dropped out."""
        pending = {(group, position) for group, phase in phases.items() for position in phase.steps}
        self.failed.clear()
        for _ in range(ATTEMPTS):
            pending = self._attempt(phases, sorted(pending)) if pending else pending
        for (phase_name, reason), nodes in sorted(self.failed.items()):
            meaning = " (it no longer says that it lives)" if reason == GONE else ""
            log(WARNING, "exchange: %s%s in phase %r: %s", reason, meaning, phase_name, named(nodes))
        for group, phase in phases.items():
            if silent := [self.groups[group][position] for one, position in pending if one == group]:
                log(
                    WARNING, "exchange: no reply in phase %r within %.0f s, asked %d times: %s", phase.name,
                    phase.timeout, ATTEMPTS, named(silent),
                )  # fmt: skip
                self.tally.refused[f"{phase.name}: {SILENT}"] += len(silent)

    def _attempt(self, phases: Mapping[int, _Phase], pending: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Send once, and return the devices that did not reply."""
        notice = self.safeguards.notice  # once: it is read and signed
        messages = {(group, place): self._message(phases[group], group, place, notice) for group, place in pending}
        timeout = max(phase.timeout for phase in phases.values())
        replies = send_and_receive(self.grid, list(messages.values()), timeout)
        senders = {message.metadata.message_id: sender for sender, message in messages.items()}
        for reply in replies:
            if (sender := senders.pop(reply.metadata.reply_to_message_id, None)) is not None:
                self._take(phases[sender[0]], *sender, reply)
        return set(senders.values())

    def _message(self, phase: _Phase, group: int, position: int, notice: Notice | None) -> Message:
        records = RecordDict() if phase.play_request is None else copy_of(phase.play_request)
        records[RECORD] = phase.steps[position].to_record()
        with_notice(records, notice)
        node = self.groups[group][position]
        self.tally.down[node] += records_bytes(records)
        return message_to(node, ACTIONS[phase.name], records, self.safeguards.deployed)

    def _take(self, phase: _Phase, group: int, position: int, reply: Message) -> None:
        if reply.has_error():
            reason, node = failure(reply), self.groups[group][position]
            self.tally.refused[f"{phase.name}: {reason}"] += 1
            self.failed.setdefault((phase.name, reason), []).append(node)
            if reason in (OUT, TIRED):
                self.tally.done.add(node)
            return
        self.tally.up[self.groups[group][position]] += records_bytes(reply.content)
        if not of_this_release(reply):
            self.tally.refused[f"{phase.name}: {OTHER_RELEASE}"] += 1
            return
        try:
            phase.take(position, reply_from_records(reply.content))
        except SecureSumError:
            self.tally.refused[f"{phase.name}: bad reply"] += 1
