"""The boundaries at which a device answers: the time of an answer must not tell how long the device has played.

An answer that depends on play leaves a whole number of intervals after its request came, one interval at least. Its
time says at most how many intervals the play took. Refusals and failures wait as well: they can come before, during or
after play.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back(
    interval: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Leave a ``with`` block a whole number of intervals after it was entered, also where it fails.

    What ends the process, such as `SystemExit` of a signal's handler, leaves it at once.

    Parameters
    ----------
    interval
        Seconds; 0 leaves at once.
    clock
        Never set back or forward: an owner, or a time server, may set the clock of the day at any moment.
    """
    entered = clock()
    try:
        yield
    except Exception:
        _wait(entered, interval, clock, sleep)
        raise
    _wait(entered, interval, clock, sleep)


def _wait(entered: float, interval: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    if interval <= 0:
        return
    boundary = entered + interval * max(1, math.ceil((clock() - entered) / interval))
    while (left := boundary - clock()) > 0:
        sleep(left)
