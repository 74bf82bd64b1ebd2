"""Worker processes of a simulation: they compute shares of a stage's work beside the process that started them.

A share's result must not depend on where it is computed, nor on which shares the same process computed before. Then a
run gives the same results with any number of processes.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from queue import SimpleQueue
from typing import Self, TypeVar

from ..protocol.errors import ConfigError, FedoelError
from ..protocol.host.processes import environment_of_children
from .worker import SIZE_BYTES

SHARES = 4  # the number of shares is a multiple of it, so that two or four processes have equally many
STOP_SECONDS = 5.0

Share = TypeVar("Share")
Result = TypeVar("Result")
Item = TypeVar("Item")


class Workers:
    """A number of processes that compute shares: this one, and workers that are started when they are first needed.

    Workers end with this process, whatever ends it: they watch their standard input.

    Parameters
    ----------
    processes
        Number of processes, this one included.

    Raises
    ------
    ConfigError
        If it is less than one.
    """

    def __init__(self, processes: int = 1) -> None:
        if processes < 1:
            raise ConfigError(f"a simulation needs at least one process, not {processes}")
        self.processes = processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def map(
        self,
        function: Callable[[Share], Result],
        shares: Sequence[Share],
        advance: Callable[[Result], object] = lambda result: None,
    ) -> list[Result]:
        """Compute all shares, and return their results in order.

        Parameters
        ----------
        function
            Computes one share. Function, shares and results must be picklable; where several processes compute, what
            the function changes in its share is changed in a copy.
        advance
            Called with every result in the caller's thread, when a share has been computed there.

        Raises
        ------
        FedoelError
            If a worker fails or dies; the workers are stopped then.
        """
        results: dict[int, Result] = {}
        waiting, finished = deque(enumerate(shares)), SimpleQueue[int]()

        def tell() -> None:
            while not finished.empty():
                advance(results[finished.get()])

        def compute(call: Callable[[Callable[[Share], Result], Share], Result]) -> None:
            try:
                for number, share in _taken(waiting):
                    results[number] = call(function, share)
                    finished.put(number)
                    if call is _here:
                        tell()
            except BaseException:
                waiting.clear()
                raise

        workers = self._started(min(self.processes, len(shares)) - 1)
        with ThreadPoolExecutor(max(1, len(workers))) as pool:
            try:
                lanes = [pool.submit(compute, worker.call) for worker in workers]
                compute(_here)
                for lane in lanes:
                    lane.result()
            except BaseException:
                self.stop()  # unblocks the threads that wait for a worker
                raise
        tell()
        return [results[number] for number in range(len(shares))]

    def stop(self) -> None:
        """End all workers; later calls start new ones."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def _started(self, number: int) -> list[_Worker]:
        while len(self._workers) < number:
            self._workers.append(_Worker())
        return self._workers[: max(0, number)]


def _taken(waiting: deque[Item]) -> Iterator[Item]:
    """Yield what is left, until this thread or another one has taken the last one."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _here(function: Callable[[Share], Result], share: Share) -> Result:
    return function(share)


class _Worker:
    """A process that runs `fedoel.simulations.worker`. `multiprocessing` would import the caller's main module into it.

    It ends when its standard input is closed, so it cannot outlive this process.
    """

    def __init__(self) -> None:
        # -P: no modules from the working folder first.
        command = [sys.executable, "-P", "-m", f"{__package__}.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment_of_children()
        )

    def call(self, function: Callable[[Share], Result], share: Share) -> Result:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        work = pickle.dumps((function, share))  # an error here is the caller's
        try:
            stdin.write(len(work).to_bytes(SIZE_BYTES) + work)
            stdin.flush()
            failure, result = pickle.load(stdout)
        except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise FedoelError(
                "a worker process ended before its work was done; is there enough memory? Take fewer with --processes, "
                "and go on with --resume"
            ) from error
        if failure:
            raise FedoelError(failure)
        return result  # type: ignore[no-any-return]

    def stop(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError):  # it is dead, with work unread
            stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def divided(items: Sequence[Item], most: int) -> list[Sequence[Item]]:
    """Divide work into shares of nearly equal size, as it is done with any number of processes.

    Parameters
    ----------
    most
        Largest size of a share.
    """
    number = -(-len(items) // max(1, most))
    if number > 1:
        number = min(len(items), -(-number // SHARES) * SHARES)
    bounds = [len(items) * share // number for share in range(number + 1)] if number else []
    return [items[first:last] for first, last in pairwise(bounds)]
