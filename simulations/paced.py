"""A discrete-event simulation of devices with different speeds, as an in-process grid with simulated time.

Replies are computed when messages are pushed, and become available once the simulated duration of their device has
passed. Pulling advances the simulated time to the next arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Message

from .grid import FIRST_NODE_ID, InProcessGrid


class PacedGrid(InProcessGrid):
    """Delivers replies when they are due; `now` is the simulated time, in the unit of the durations.

    Parameters
    ----------
    duration
        Maps a client's number to the time that it takes to reply.
    """

    def __init__(self, *arguments: Any, duration: Callable[[int], float], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.now = 0.0
        self._duration = duration
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Compute the replies, and record when each is due."""
        sent = list(messages)
        ids = list(super().push_messages(sent))
        clients = [message.metadata.dst_node_id - FIRST_NODE_ID for message in sent]
        self._due |= {key: self.now + self._duration(client) for key, client in zip(ids, clients, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived; if there are none, advance the time to the next arrival."""
        pending = {key: self._due[key] for key in message_ids if key in self._due}
        if pending:
            self.now = max(self.now, min(pending.values()))
        return self._take([key for key, due in pending.items() if due <= self.now])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and advance the time to the arrival of the last reply."""
        ids = list(self.push_messages(messages))
        self.now = max([self.now, *(self._due[key] for key in ids)])
        return self._take(ids)

    def _take(self, ids: list[str]) -> Iterable[Message]:
        for key in ids:
            del self._due[key]
        return super().pull_messages(ids)


def spread_durations(clients: int, slowest: float) -> Mapping[int, float]:
    """Return durations from 1 to `slowest`, evenly spaced on a logarithmic scale, in a fixed mixed order of clients."""
    ranks = {client: (7 * client) % clients / max(1, clients - 1) for client in range(clients)}
    return {client: float(slowest**rank) for client, rank in ranks.items()}
