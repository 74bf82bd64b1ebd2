"""Delivery of messages: send, poll for replies until a deadline, and retry while too few devices are ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ..protocol.release import RELEASE

POLL_SECONDS = 0.5
RETRY_SECONDS = 60.0
NAMED = 10  # nodes in a warning about those that are missing


def send_and_receive(grid: Grid, messages: Sequence[Message], timeout: float) -> list[Message]:
    """Return the replies that arrive before the timeout.

    Does what `Grid.send_and_receive` does, but polls every 0.5 s; Flower polls every 3 s.

    Parameters
    ----------
    messages
        At least one message: Flower raises if there is nothing to send.
    timeout
        Seconds to wait for all replies together.
    """
    deadline = time.monotonic() + timeout
    # Flower returns None as the id of a message that it could not send.
    pending, replies = {message_id for message_id in grid.push_messages(messages) if message_id}, list[Message]()
    while pending:
        arrived = list(grid.pull_messages(pending))
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        replies += arrived
        if not pending or time.monotonic() >= deadline:
            break
        if not arrived:
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return replies


def message_to(node: int, action: str, records: RecordDict, deployed: bool) -> Message:
    """Return a message to a device, which is told this server's release unless it is simulated."""
    return Message(records, dst_node_id=node, message_type=action, group_id=RELEASE.sent if deployed else "")


def named(nodes: Iterable[int]) -> str:
    """Name nodes by their ids, the first of them where they are many: ``nodes 17, 23 and 4 more``."""
    ids = sorted(nodes)
    shown, more = ", ".join(map(str, ids[:NAMED])), len(ids) - NAMED
    return f"node{'s' * (len(ids) > 1)} {shown}{f' and {more} more' if more > 0 else ''}"


class RetryWindow:
    """A time window in which devices that were not ready are asked again.

    Parameters
    ----------
    seconds
        Length of the window, which opens now; 0 means no retry.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep, self._end = clock, sleep, clock() + seconds

    def wait(self) -> bool:
        """Sleep until the next retry is due; return False, without sleeping, once the window has closed."""
        remaining = self._end - self._clock()
        if remaining <= 0:
            return False
        self._sleep(min(RETRY_SECONDS, remaining))
        return True
