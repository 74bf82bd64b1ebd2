"""Send messages, wait for their replies, and ask again later where too few devices are ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.5
AGAIN_SECONDS = 60.0


def send_and_receive(grid: Grid, messages: Sequence[Message], timeout: float) -> list[Message]:
    """Return the replies that came in time, as `Grid.send_and_receive` does, which looks for them every 3 s only.

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
        arrived = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        replies += arrived
        if not waiting or time.monotonic() >= deadline:
            break
        if not arrived:
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return replies


class Patience:
    """How long to go on asking devices that are not ready to play.

    Parameters
    ----------
    seconds
        From now on; 0 asks once.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep, self._end = clock, sleep, clock() + seconds

    def wait(self) -> bool:
        """Wait until it is time to ask again; False if there is no time left."""
        left = self._end - self._clock()
        if left <= 0:
            return False
        self._sleep(min(AGAIN_SECONDS, left))
        return True
