"""An in-process grid with a clock of its own: devices of different speeds, and no time that anybody has to wait.

A reply is made when it is asked for, and is there when its device would have finished. Pulling moves the clock to the
next arrival, as waiting would: a discrete-event simulation of a fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Message

from .grid import FIRST_NODE_ID, InProcessGrid


class PacedGrid(InProcessGrid):
    """Hands replies out when they are due. `now` is the simulated time, in the unit of the durations.

    Parameters
    ----------
    duration
        Time that a client takes to answer, from its number.
    """

    def __init__(self, *arguments: Any, duration: Callable[[int], float], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.now = 0.0
        self._duration = duration
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have every message answered, and note when the answer is due."""
        sent = list(messages)
        names = list(super().push_messages(sent))
        clients = [message.metadata.dst_node_id - FIRST_NODE_ID for message in sent]
        self._due |= {name: self.now + self._duration(client) for name, client in zip(names, clients, strict=True)}
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return what has arrived; if nothing has, what arrives next, when it does."""
        waiting = {name: self._due[name] for name in message_ids if name in self._due}
        if waiting:
            self.now = max(self.now, min(waiting.values()))
        arrived = [name for name, due in waiting.items() if due <= self.now]
        return self._take(arrived)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and wait for the last one."""
        names = list(self.push_messages(messages))
        self.now = max([self.now, *(self._due[name] for name in names)])
        return self._take(names)

    def _take(self, names: list[str]) -> Iterable[Message]:
        for name in names:
            del self._due[name]
        return super().pull_messages(names)


def spread_durations(clients: int, slowest: float) -> Mapping[int, float]:
    """Durations from 1 to `slowest`, evenly on a logarithmic scale, dealt out so that neighbours differ."""
    ranks = {client: (7 * client) % clients / max(1, clients - 1) for client in range(clients)}
    return {client: float(slowest**rank) for client, rank in ranks.items()}
