"""What a run does while the fleet's owner has stopped the fleet: it tells every node that connects, and waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import INFO, WARNING, getLogger

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from ..protocol.fleet.notice import ACTION, RECORD, Notice
from ..protocol.messages import with_notice
from .server_side import Safeguards

log = getLogger("flwr").log
POLL_SECONDS = 1.0
AGAIN_SECONDS = 60.0  # after which a node that has answered with an error is told again


def is_stopped(safeguards: Safeguards) -> bool:
    """Whether the newest notice of the fleet's owner says stop."""
    notice = safeguards.notice
    return notice is not None and notice.stop


def wait_while_stopped(
    grid: Grid,
    safeguards: Safeguards,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return at once unless the newest notice says stop; otherwise carry it to all nodes until a newer one lifts it."""
    told: Telling | None = None
    while (notice := safeguards.notice) is not None and notice.stop:
        if told is None or told.notice.number != notice.number:
            told = Telling(notice)
            log(WARNING, "the fleet is stopped: %s; the run waits for `fedoel server go-on`", notice)
        if nodes := told.tell(grid, clock()):
            safeguards.acknowledge(notice, nodes)
            log(INFO, "stopped: %d nodes have acknowledged it", len(told.acknowledged))
        sleep(POLL_SECONDS)
    if told is not None:
        log(WARNING, "the fleet goes on: %s", notice)


@dataclass
class Telling:
    """A notice on its way to the nodes; each is told once, when it is there.

    Parameters
    ----------
    acknowledged
        Nodes that have it.
    """

    notice: Notice
    acknowledged: set[int] = field(default_factory=set)
    _pending: dict[str, int] = field(default_factory=dict)  # node by message
    _refused: dict[int, float] = field(default_factory=dict)  # when a node has answered with an error

    def tell(self, grid: Grid, now: float) -> set[int]:
        """Tell nodes that have not been told yet, and return those that have acknowledged it since the last call."""
        waiting = {node for node, at in self._refused.items() if now - at < AGAIN_SECONDS}
        known = {*self.acknowledged, *self._pending.values(), *waiting}
        new = [node.node_id for node in grid.get_nodes() if node.node_id not in known]
        messages = [
            Message(with_notice(RecordDict(), self.notice), dst_node_id=node, message_type=ACTION) for node in new
        ]
        if messages:  # Flower returns None as the id of a message that it could not send
            sent = zip(grid.push_messages(messages), new, strict=True)
            self._pending |= {message_id: node for message_id, node in sent if message_id}
        acknowledged = set[int]()
        for reply in grid.pull_messages(list(self._pending)) if self._pending else ():
            node = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            if self._is_acknowledgement(reply):
                acknowledged.add(node)
            else:
                self._refused[node] = now
        self.acknowledged |= acknowledged
        return acknowledged

    def _is_acknowledgement(self, reply: Message) -> bool:
        if reply.has_error():
            return False
        record = reply.content.get(RECORD)
        return isinstance(record, ConfigRecord) and record.get("number") == self.notice.number
