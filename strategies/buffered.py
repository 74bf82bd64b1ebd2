"""Asynchronous aggregation: the first arrivals make the next version, and nobody waits for the slowest.

FedBuff (Nguyen et al. 2022, arXiv 2106.06639) on Flower's messages: a device that is still at work is left alone, and
what it sends later counts less, the more exchanges have gone by since it was asked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, FedoelError
from ..protocol.experience import Contribution, VectorSpec
from ..protocol.messages import PlayRequest
from .asking import POLL_SECONDS, Patience
from .experience import log
from .mean import Mean
from .replies import Sorted, in_order, sort_replies

STALE = "too stale"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A device at work: when it was asked, and what."""

    node: int
    server_round: int
    request: PlayRequest


class Buffered(Mean):
    """Aggregate as soon as enough devices have answered; the others go on, and count later.

    Who is at work is not on disk: a run that is resumed asks them anew.

    Parameters
    ----------
    buffer_size
        Usable vectors that make an aggregate; 0 for half of the devices that are asked at first.
    staleness_exponent
        A vector that was asked for ``s`` exchanges ago has the weight ``1 / (1 + s) ** staleness_exponent``.
    max_staleness
        Exchanges after which a device is given up, and asked anew.
    """

    def __init__(
        self,
        *arguments: Any,
        buffer_size: int = 0,
        staleness_exponent: float = 0.5,
        max_staleness: int = 4,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        if buffer_size < 0 or max_staleness < 0 or staleness_exponent < 0:
            raise ConfigError("buffer-size, staleness-exponent and max-staleness must not be negative")
        self.buffer_size = buffer_size
        self.staleness_exponent = staleness_exponent
        self.max_staleness = max_staleness
        self._at_work: dict[str, _Asked] = {}

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Draw as any strategy does, and leave those alone that are at work."""
        busy = {asked.node for asked in self._at_work.values()}
        return [node for node in super().draw(nodes, cycle, exchange) if node not in busy]

    def exchange(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Ask who is idle, wait until the buffer is full, and hand on what is in it."""
        given_up, patience = self._give_up(server_round), Patience(self.patience)
        messages = self.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
        exchange = self._exchange
        if exchange is None:
            raise FedoelError(f"round {server_round} was not asked for: configure_train left no request")
        arrived = self._gather(grid, server_round, messages, exchange.request, timeout)
        while messages and not arrived.contributions and not self._at_work and patience.wait():
            messages = self._ask_again()
            arrived = self._gather(grid, server_round, messages, exchange.request, timeout)
        self._exchange = None
        log(INFO, "exchange: %d vectors, %d nodes still at work", len(arrived.contributions), len(self._at_work))
        refused = dict(sorted((given_up + Counter(arrived.refused)).items()))
        return self.conclude(server_round, replace(arrived, refused=refused), exchange.downlink_bytes)

    def _gather(
        self, grid: Grid, server_round: int, messages: list[Message], request: PlayRequest, timeout: float
    ) -> Sorted:
        """Send messages, and take what arrives, theirs or others', until there is enough of it."""
        names = grid.push_messages(messages) if messages else []
        for name, message in zip(names, messages, strict=True):
            if name:  # Flower says None of a message that it could not send
                self._at_work[name] = _Asked(message.metadata.dst_node_id, server_round, request)
        contributions: list[Contribution] = []
        uplink, refused = list[int](), Counter[str]()
        for asked, arrived in self._arrivals(grid, timeout):
            age = server_round - asked.server_round
            contributions += [self._weighted(each, age, request.spec) for each in arrived.contributions]
            uplink += arrived.uplink
            refused.update(arrived.refused)
        return Sorted(in_order(contributions), tuple(uplink), refused)

    def _give_up(self, server_round: int) -> Counter[str]:
        """Forget devices that were asked too long ago."""
        late = [n for n, asked in self._at_work.items() if server_round - asked.server_round > self.max_staleness]
        for name in late:
            del self._at_work[name]
        return Counter({STALE: len(late)} if late else {})

    def _arrivals(self, grid: Grid, timeout: float) -> Iterator[tuple[_Asked, Sorted]]:
        """Take replies until there are enough, everybody has answered, or the time is over; none is left lying."""
        wanted, deadline = self.buffer_size or -(-len(self._at_work) // 2), time.monotonic() + timeout
        found = 0
        while self._at_work and found < wanted:
            replies = list(grid.pull_messages(list(self._at_work)))
            for reply in replies:
                name = reply.metadata.reply_to_message_id
                asked = self._at_work.pop(name)
                arrived = sort_replies([reply], {name: asked.node}, asked.request.spec, bool(asked.request.plan))
                found += len(arrived.contributions)
                yield asked, arrived
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if not replies:
                time.sleep(min(POLL_SECONDS, left))

    def _weighted(self, contribution: Contribution, age: int, spec: VectorSpec) -> Contribution:
        """Weigh gradient and Fisher diagonal alike: what is old is less evidence, in the same direction."""
        weight = np.float32((1 + age) ** -self.staleness_exponent)
        vector = contribution.vector
        aged = replace(vector, spec=spec, gradient=weight * vector.gradient, fisher=weight * vector.fisher)
        return replace(contribution, vector=aged)
