"""A worker process: computes the shares that it reads from standard input, for `fedoel.simulations.workers`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from queue import SimpleQueue
from threading import Thread
from typing import Any

from ..protocol.errors import FedoelError
from ..protocol.host.memory import return_free_memory
from .grid import server_identity

SIZE_BYTES = 8  # of a frame, in front of it


def main() -> None:
    """Answer each pickled pair of function and share with a pickled failure, empty if there is none, and a result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one handles Ctrl-C, and ends it
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # that process says them, too
    work: SimpleQueue[bytes] = SimpleQueue()
    # Standard output is for results: what libraries print goes to standard error.
    with os.fdopen(os.dup(1), "wb") as results, server_identity():
        os.dup2(2, 1)
        Thread(target=_read, args=(work,), daemon=True).start()
        while True:
            pickle.dump(_computed(work.get()), results)
            results.flush()
            return_free_memory()


def _read(work: SimpleQueue[bytes]) -> None:
    """Read work, and end this process with its standard input, in the middle of a share as well."""
    try:
        while size := sys.stdin.buffer.read(SIZE_BYTES):
            work.put(sys.stdin.buffer.read(int.from_bytes(size)))
    finally:
        os._exit(0)


def _computed(work: bytes) -> tuple[str, Any]:
    try:
        function, share = pickle.loads(work)
        return "", function(share)
    except FedoelError as error:
        return str(error), None
    except Exception as error:
        return f"a worker process failed: {type(error).__name__}: {error}", None


if __name__ == "__main__":
    main()
