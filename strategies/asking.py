"""Send messages and wait for their replies: as `Grid.send_and_receive`, which looks for replies every 3 s only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.5


def send_and_receive(grid: Grid, messages: Sequence[Message], timeout: float) -> list[Message]:
    """Return the replies that came in time.

    Parameters
    ----------
    messages
        At least one; Flower refuses to send nothing.
    timeout
        Seconds to wait for all of them.
    """
    deadline = time.monotonic() + timeout
    # Flower says None of a message that it could not send.
    waiting, replies = {name for name in grid.push_messages(messages) if name}, list[Message]()
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            replies.append(reply)
        if not waiting or time.monotonic() >= deadline:
            break
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return replies
