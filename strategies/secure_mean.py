"""The strategy for deployment: the server learns the cohort's sum, noisy if the run says so, and no single vector.

An exchange is a round of the secure sum: five messages to every device instead of one. Whoever drops out at any of them
is left out of the sum or taken out of it; when too few are left, the round fails closed and the run goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, SecureSumError, VectorError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec
from ..protocol.messages import PlayRequest, copy_of, records_bytes, request_to_records
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg.graph import choose_graph
from ..protocol.secagg.messages import ACTIONS, RECORD, Step, first_step, reply_from_records, subject
from ..protocol.secagg.server import ServerRound
from ..protocol.secagg.terms import Terms
from .asking import Patience, send_and_receive
from .budget import BudgetStrategy
from .cohort import wait_for_nodes
from .experience import log
from .replies import SILENT, failure
from .rounds import Traffic

FAILED = "round failed"
ATTEMPTS = 2  # a phase is idempotent: who did not answer in time is asked once more


@dataclass
class Tally:
    """Bytes to and from each node, what was refused, and whether budget was spent, over the phases of a round."""

    down: Counter[int] = field(default_factory=Counter)
    up: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    spent: bool = False

    def traffic(self, accepted: int) -> Traffic:
        """Means per device that was asked."""
        asked = max(1, len(self.down))
        refused = dict(sorted(self.refused.items()))
        return Traffic(self.up.total() / asked, self.down.total() / asked, accepted, refused)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One phase of a round: what each position is sent, and who takes its reply."""

    phase: str
    steps: Mapping[int, Step]
    take: Callable[[int, bytes], None]
    timeout: float
    beside: RecordDict | None = None


class SecureMean(BudgetStrategy):
    """Every client counts by what it played, and no vector is seen: the aggregate is the secure sum over the cohort.

    Parameters
    ----------
    phase_timeout
        Seconds to wait in the phases in which nothing is played.
    """

    mechanisms = frozenset({"none", "distributed"})

    def __init__(self, *arguments: Any, phase_timeout: float = 120.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.phase_timeout = phase_timeout

    def check(self, spec: VectorSpec) -> None:
        """Refuse cohorts whose secrets would not be safe, too."""
        super().check(spec)
        self.check_graph(self.server.safeguards.sample)

    def check_graph(self, devices: int) -> None:
        """Refuse a secure sum over so many devices in which their secrets would not be safe."""
        safeguards = self.server.safeguards
        try:
            choose_graph(devices, safeguards.colluding, safeguards.max_dropout)
        except SecureSumError as error:
            raise ConfigError(str(error)) from error

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Refuse: there are no contributions to see.

        Raises
        ------
        VectorError
            Always.
        """
        raise VectorError("a secure sum has no single contributions")

    def plan(self, spec: VectorSpec) -> PrivacyPlan:
        """Return the privacy plan of one secure sum."""
        return self.server.safeguards.plan(spec)

    def release(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Run one round; a round that fails is an exchange in which nothing was learned."""
        tally, request = Tally(), self.server.rounds.request(*self.place(server_round))
        found = self.sums(grid, server_round, request, timeout, tally)
        aggregate = self.combine(server_round, found, tally) if found else None
        accepted = aggregate.cohort if aggregate else 0
        self.hand_on(server_round, aggregate, tally.traffic(accepted))
        return MetricRecord({"accepted": accepted, "refused": tally.refused.total()})

    def combine(self, server_round: int, sums: list[Aggregate], tally: Tally) -> Aggregate | None:
        """Make one aggregate of the groups' sums, at least one; None if none of them should be used."""
        return sums[0]

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Deal a cohort into groups that are summed by themselves: here it is one."""
        return [cohort]

    def sums(
        self, grid: Grid, server_round: int, request: PlayRequest, timeout: float, tally: Tally
    ) -> list[Aggregate]:
        """Draw a cohort and sum its groups, again while none of the sums came about and no budget was spent."""
        patience = Patience(self.patience)
        while True:
            nodes = wait_for_nodes(grid, self.min_available_nodes, self.node_timeout)
            groups = self.groups(self.draw(nodes, *self.place(server_round)))
            found = self.secure_sums(grid, groups, request, timeout, tally)
            if found or tally.spent or not patience.wait():
                return found
            log(INFO, "exchange: nothing was released; asking again")
            tally.refused.clear()

    def secure_sums(
        self, grid: Grid, cohorts: Sequence[Sequence[int]], request: PlayRequest, timeout: float, tally: Tally
    ) -> list[Aggregate]:
        """Take cohorts through the phases side by side; one that fails closed is left out."""
        found: dict[int, Aggregate] = {}
        rounds = {place: self._round(len(cohort), request, timeout, tally) for place, cohort in enumerate(cohorts)}
        while rounds:
            asks: dict[int, _Ask] = {}
            for place, under_way in list(rounds.items()):
                try:
                    asks[place] = next(under_way)
                except StopIteration as end:
                    found[place] = end.value
                except SecureSumError as error:
                    log(WARNING, "exchange: the round fails closed: %s", error)
                    tally.refused[FAILED] += 1
                if place not in asks:
                    del rounds[place]
            _Asking(grid, cohorts, tally).ask(asks)
        return [found[place] for place in sorted(found)]

    def _round(
        self, cohort: int, request: PlayRequest, timeout: float, tally: Tally
    ) -> Generator[_Ask, None, Aggregate]:
        """One secure sum over a cohort of this size: each phase asks, and goes on with what was taken."""
        safeguards, spec = self.server.safeguards, request.spec
        plan = self.plan(spec)
        if not safeguards.noisy:  # devices that joined after the plan was made take part in their turn
            cohort = min(cohort, plan.cohort)
        terms = self._terms(cohort, spec, plan)
        log(INFO, "exchange: secure sum over %d nodes, %d neighbours each", terms.cohort, terms.neighbours)
        members, listed = safeguards.members, safeguards.signed_members
        state, name, wait = ServerRound(terms, members), terms.digest, self.phase_timeout
        yield _Ask("keys", {p: first_step(terms, p) for p in range(cohort)}, state.take_keys, wait)
        state.check(state.adverts, terms.threshold + 1)
        steps = {p: Step(name, state.adverts_for(p), listed) for p in state.adverts}
        yield _Ask("shares", steps, state.take_shares, wait)
        state.check(state.sealed, terms.threshold + 1)
        play, paper = request_to_records(request), plan.to_json().encode()
        steps = {p: Step(name, state.shares_for(p), paper) for p in state.sealed}
        yield _Ask("masked", steps, state.take_masked, timeout, play)
        state.check(state.masked)
        survivors = state.survivors
        yield _Ask("confirm", {p: Step(name, survivors) for p in state.masked}, state.take_confirmation, wait)
        state.check(state.signatures, terms.threshold)
        safeguards.spend(request.cycle)  # on disk before anything is unmasked
        tally.spent = safeguards.noisy
        steps = {p: Step(name, survivors, state.signatures_for(p)) for p in state.signatures}
        yield _Ask("unmask", steps, state.take_opened, wait)
        total, devices = plan.decode(state.total()), len(state.masked)
        return Aggregate(ExperienceVector.from_parts(spec, total), devices, plan.variance("gradient", devices))

    def _terms(self, cohort: int, spec: VectorSpec, plan: PrivacyPlan) -> Terms:
        safeguards = self.server.safeguards
        if not plan.minimum <= cohort <= plan.cohort:
            raise SecureSumError(f"{cohort} devices were drawn, outside of the plan's {plan.minimum} to {plan.cohort}")
        graph = choose_graph(cohort, safeguards.colluding, safeguards.max_dropout)
        run, number = safeguards.begin_round()
        return Terms(
            run, number, cohort, graph.neighbours, graph.threshold, plan.minimum, plan.cells, plan.bits,
            subject(spec.digest, plan),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks the devices of rounds that are in the same phase; a position is a place in a cohort."""

    grid: Grid
    cohorts: Sequence[Sequence[int]]
    tally: Tally

    def ask(self, asks: Mapping[int, _Ask]) -> None:
        """Ask one phase, and hand every usable reply on; whoever fails has dropped out."""
        waiting = {(place, position) for place, ask in asks.items() for position in ask.steps}
        for _ in range(ATTEMPTS):
            if not waiting:
                return
            waiting = self._once(asks, sorted(waiting))
        for place, _ in waiting:
            self.tally.refused[f"{asks[place].phase}: {SILENT}"] += 1

    def _once(self, asks: Mapping[int, _Ask], waiting: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Send once, and return who did not answer."""
        messages = {(place, position): self._message(asks[place], place, position) for place, position in waiting}
        timeout = max(ask.timeout for ask in asks.values())
        replies = send_and_receive(self.grid, list(messages.values()), timeout)
        senders = {message.metadata.message_id: sender for sender, message in messages.items()}
        for reply in replies:
            if (sender := senders.pop(reply.metadata.reply_to_message_id, None)) is not None:
                self._take(asks[sender[0]], *sender, reply)
        return set(senders.values())

    def _message(self, ask: _Ask, place: int, position: int) -> Message:
        records = RecordDict() if ask.beside is None else copy_of(ask.beside)
        records[RECORD] = ask.steps[position].to_record()
        node = self.cohorts[place][position]
        self.tally.down[node] += records_bytes(records)
        return Message(records, dst_node_id=node, message_type=ACTIONS[ask.phase])

    def _take(self, ask: _Ask, place: int, position: int, reply: Message) -> None:
        if reply.has_error():
            self.tally.refused[f"{ask.phase}: {failure(reply)}"] += 1
            return
        self.tally.up[self.cohorts[place][position]] += records_bytes(reply.content)
        try:
            ask.take(position, reply_from_records(reply.content))
        except SecureSumError:
            self.tally.refused[f"{ask.phase}: bad reply"] += 1
