"""The strategy for deployment: the server learns the cohort's sum, noisy if the run says so, and no single vector.

An exchange is a round of the secure sum: five messages to every device instead of one. Whoever drops out at any of them
is left out of the sum or taken out of it; when too few are left, the round fails closed and the run goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from ..protocol.errors import SecureSumError, VectorError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec
from ..protocol.messages import PlayRequest, copy_of, records_bytes, request_to_records
from ..protocol.privacy.plan import Plan
from ..protocol.secagg.graph import choose_graph
from ..protocol.secagg.messages import ACTIONS, RECORD, Step, first_step, reply_from_records, subject
from ..protocol.secagg.server import ServerRound
from ..protocol.secagg.terms import Terms
from .asking import Patience, send_and_receive
from .budget import BudgetStrategy
from .cohort import wait_for_nodes
from .consolidator import Traffic
from .experience import log
from .replies import SILENT, failure

FAILED = "round failed"
ATTEMPTS = 2  # a phase is idempotent: who did not answer in time is asked once more


@dataclass
class _Tally:
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


class SecureMean(BudgetStrategy):
    """Every client counts by what it played, and no vector is seen: the aggregate is the secure sum over the cohort.

    Parameters
    ----------
    phase_timeout
        Seconds to wait in the phases in which nothing is played.
    """

    def __init__(self, *arguments: Any, phase_timeout: float = 120.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.phase_timeout = phase_timeout

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Refuse: there are no contributions to see.

        Raises
        ------
        VectorError
            Always.
        """
        raise VectorError("a secure sum has no single contributions")

    def release(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Run one round; a round that fails is an exchange in which nothing was learned."""
        cycle, exchange = self.place(server_round)
        tally, aggregate = _Tally(), None
        request = self.consolidator.request(cycle, exchange)
        patience = Patience(self.patience)
        try:
            while aggregate is None:
                nodes = wait_for_nodes(grid, self.min_available_nodes, self.node_timeout)
                try:
                    aggregate = self._sum(grid, self.draw(nodes, cycle, exchange), request, timeout, tally)
                except SecureSumError as error:
                    if tally.spent or not patience.wait():
                        raise
                    log(INFO, "exchange: nothing was released; asking again: %s", error)
                    tally.refused.clear()
        except SecureSumError as error:
            log(WARNING, "exchange: the round fails closed: %s", error)
            tally.refused[FAILED] += 1
        accepted = aggregate.cohort if aggregate else 0
        self.consolidator.collect(cycle, exchange, aggregate, tally.traffic(accepted))
        return MetricRecord({"accepted": accepted, "refused": tally.refused.total()})

    def _sum(self, grid: Grid, cohort: list[int], request: PlayRequest, timeout: float, tally: _Tally) -> Aggregate:
        """Take a cohort through the five phases."""
        safeguards, spec = self.consolidator.safeguards, request.spec
        plan = safeguards.plan(spec)
        if not safeguards.noisy:  # devices that joined after the plan was made take part in their turn
            cohort = cohort[: plan.cohort]
        terms = self._terms(len(cohort), spec, plan)
        log(INFO, "exchange: secure sum over %d nodes, %d neighbours each", terms.cohort, terms.neighbours)
        members, listed = safeguards.members, safeguards.signed_members
        state, asking = ServerRound(terms, members), _Asking(grid, cohort, tally)
        name, wait, everyone = terms.digest, self.phase_timeout, range(len(cohort))
        asking.ask("keys", {p: first_step(terms, p) for p in everyone}, state.take_keys, wait)
        state.check(state.adverts, terms.threshold + 1)
        steps = {p: Step(name, state.adverts_for(p), listed) for p in state.adverts}
        asking.ask("shares", steps, state.take_shares, wait)
        state.check(state.sealed, terms.threshold + 1)
        play, paper = request_to_records(request), plan.to_json().encode()
        steps = {p: Step(name, state.shares_for(p), paper) for p in state.sealed}
        asking.ask("masked", steps, state.take_masked, timeout, play)
        state.check(state.masked)
        survivors = state.survivors
        asking.ask("confirm", {p: Step(name, survivors) for p in state.masked}, state.take_confirmation, wait)
        state.check(state.signatures, terms.threshold)
        safeguards.spend(request.cycle)  # on disk before anything is unmasked
        tally.spent = safeguards.noisy
        steps = {p: Step(name, survivors, state.signatures_for(p)) for p in state.signatures}
        asking.ask("unmask", steps, state.take_opened, wait)
        total, devices = plan.decode(state.total()), len(state.masked)
        return Aggregate(ExperienceVector.from_parts(spec, total), devices, plan.variance("gradient", devices))

    def _terms(self, cohort: int, spec: VectorSpec, plan: Plan) -> Terms:
        safeguards = self.consolidator.safeguards
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
    """Asks the devices of a round; positions are places in the cohort."""

    grid: Grid
    cohort: Sequence[int]
    tally: _Tally

    def ask(
        self,
        phase: str,
        steps: Mapping[int, Step],
        take: Callable[[int, bytes], None],
        timeout: float,
        beside: RecordDict | None = None,
    ) -> None:
        """Ask one phase of some positions, and hand every usable reply on; whoever fails has dropped out."""
        waiting: Collection[int] = set(steps)
        for _ in range(ATTEMPTS):
            waiting = self._once(phase, {p: steps[p] for p in sorted(waiting)}, take, timeout, beside)
            if not waiting:
                return
        self.tally.refused[f"{phase}: {SILENT}"] += len(waiting)

    def _once(
        self,
        phase: str,
        steps: Mapping[int, Step],
        take: Callable[[int, bytes], None],
        timeout: float,
        beside: RecordDict | None,
    ) -> set[int]:
        """Send once, and return the positions that did not answer."""
        messages = {position: self._message(phase, position, step, beside) for position, step in steps.items()}
        replies = send_and_receive(self.grid, list(messages.values()), timeout)
        positions = {message.metadata.message_id: position for position, message in messages.items()}
        for reply in replies:
            position = positions.pop(reply.metadata.reply_to_message_id, None)
            if position is not None:
                self._take(phase, position, reply, take)
        return set(positions.values())

    def _message(self, phase: str, position: int, step: Step, beside: RecordDict | None) -> Message:
        records = RecordDict() if beside is None else copy_of(beside)
        records[RECORD] = step.to_record()
        node = self.cohort[position]
        self.tally.down[node] += records_bytes(records)
        return Message(records, dst_node_id=node, message_type=ACTIONS[phase])

    def _take(self, phase: str, position: int, reply: Message, take: Callable[[int, bytes], None]) -> None:
        if reply.has_error():
            self.tally.refused[f"{phase}: {failure(reply)}"] += 1
            return
        self.tally.up[self.cohort[position]] += records_bytes(reply.content)
        try:
            take(position, reply_from_records(reply.content))
        except SecureSumError:
            self.tally.refused[f"{phase}: bad reply"] += 1
