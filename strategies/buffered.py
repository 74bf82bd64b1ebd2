"""Buffered asynchronous aggregation: FedBuff (Nguyen et al. 2022, arXiv 2106.06639) on Flower's messages.

An exchange ends as soon as its buffer is full. Devices that have not replied by then keep working; their vectors go
into a later exchange, with a weight that decreases with staleness.
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
from ..protocol.experience import Contribution
from ..protocol.messages import PlayRequest
from .delivery import POLL_SECONDS, RetryWindow
from .experience import log
from .mean import Mean
from .replies import SortedReplies, in_order, sort_replies

STALE = "too stale"


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    """A request that has no reply yet: its node, the round in which it was sent, and its content."""

    node: int
    server_round: int
    request: PlayRequest


class Buffered(Mean):
    """FedBuff: aggregate as soon as `buffer_size` vectors have arrived.

    Pending requests are not kept on disk: a resumed run sends them again.

    Parameters
    ----------
    buffer_size
        Number of usable vectors to aggregate; 0 means half of the pending requests at the start of an exchange.
    staleness_exponent
        A vector requested ``s`` exchanges ago has the weight ``(1 + s) ** -staleness_exponent``.
    max_staleness
        Requests older than this many exchanges are dropped; their devices can then be sampled again.
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
        self._pending: dict[str, _PendingRequest] = {}

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Sample a cohort, without the nodes that have a pending request."""
        busy = {pending.node for pending in self._pending.values()}
        return [node for node in super().draw(nodes, cycle, exchange) if node not in busy]

    def exchange(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Send requests to idle nodes, wait until the buffer is full, and aggregate it."""
        stale = [key for key, sent in self._pending.items() if server_round - sent.server_round > self.max_staleness]
        for message_id in stale:
            del self._pending[message_id]
        retry = RetryWindow(self.patience)
        messages = self.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
        exchange = self._exchange
        if exchange is None:
            raise FedoelError(f"round {server_round} has no request: configure_train did not make one")
        arrived = self._gather(grid, server_round, messages, exchange.request, timeout)
        while messages and not arrived.contributions and not self._pending and retry.wait():
            messages = self._ask_again(grid)
            arrived = self._gather(grid, server_round, messages, exchange.request, timeout)
        self._exchange = None
        log(INFO, "exchange: %d vectors, %d requests pending", len(arrived.contributions), len(self._pending))
        refused = dict(sorted((Counter({STALE: len(stale)}) + Counter(arrived.refused)).items()))
        return self.conclude(server_round, replace(arrived, refused=refused), exchange.downlink_bytes)

    def _gather(
        self, grid: Grid, server_round: int, messages: list[Message], request: PlayRequest, timeout: float
    ) -> SortedReplies:
        """Send messages, and collect replies to these and to earlier requests until the buffer is full."""
        message_ids = grid.push_messages(messages) if messages else []
        for message_id, message in zip(message_ids, messages, strict=True):
            if message_id:  # Flower returns None as the id of a message that it could not send
                self._pending[message_id] = _PendingRequest(message.metadata.dst_node_id, server_round, request)
        contributions: list[Contribution] = []
        uplink, refused = list[int](), Counter[str]()
        for pending, arrived in self._arrivals(grid, timeout):
            # Gradient and Fisher diagonal get the same weight: less evidence for the same natural step.
            weight = np.float32((1 + server_round - pending.server_round) ** -self.staleness_exponent)
            for item in arrived.contributions:
                gradient, fisher = weight * item.vector.gradient, weight * item.vector.fisher
                vector = replace(item.vector, spec=request.spec, gradient=gradient, fisher=fisher)
                contributions.append(replace(item, vector=vector))
            uplink += arrived.uplink
            refused.update(arrived.refused)
        return SortedReplies(in_order(contributions), tuple(uplink), refused)

    def _arrivals(self, grid: Grid, timeout: float) -> Iterator[tuple[_PendingRequest, SortedReplies]]:
        """Yield replies until the buffer is full, no request is pending, or the timeout is over.

        A poll's replies are all yielded, since Flower delivers each only once: the buffer can end up more than full.
        """
        capacity, deadline = self.buffer_size or -(-len(self._pending) // 2), time.monotonic() + timeout
        received = 0
        while self._pending and received < capacity:
            replies = list(grid.pull_messages(list(self._pending)))
            for reply in replies:
                message_id = reply.metadata.reply_to_message_id
                pending = self._pending.pop(message_id)
                sender, request = {message_id: pending.node}, pending.request
                arrived = sort_replies([reply], sender, request.spec, self.most_games, request.plan)
                received += len(arrived.contributions)
                yield pending, arrived
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            if not replies:
                time.sleep(min(POLL_SECONDS, remaining))
