"""The curves of a run in TensorBoard or Trackio, for those who keep their experiments there.

Both get the same numbers, by cycle, from the events of the run. A tracker that fails is left out: a view never ends a
run.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.records.events import CycleFinished, Event, Listener
from ..protocol.records.summary import CycleRecord

PROJECT = "fedoel"  # in Trackio
FOLDER = "tensorboard"  # in the folder of a run


class Tracker(Protocol):
    """What keeps the curves of one run."""

    def log(self, record: CycleRecord) -> None:
        """Add what is known of one cycle."""

    def close(self) -> None:
        """Write what is still in memory."""


def curves(record: CycleRecord) -> dict[str, float]:
    """Return the numbers of a cycle by ``GROUP/NAME``; what was not measured is left out.

    Rates are fractions, bytes are those of one client, and ``gate/promoted`` is 1 where the candidate was promoted.
    """
    held_out, gate = record.held_out, record.gate.named() if record.gate else {}
    numbers: dict[str, float | None] = {
        "gate/promoted": float(record.decision == "promoted"),
        **{f"gate/{name}": stats.win_rate if stats else None for name, stats in gate.items()},
        "bytes/up": record.uplink_bytes,
        "bytes/down": record.downlink_bytes,
        "privacy/epsilon": record.epsilon,
        "fleet/accepted": float(record.accepted),
        "fleet/refused": float(sum(record.refused.values())),
        "context/kl": record.kl,
    }
    if held_out.episodes:
        numbers |= {
            "held-out/success": held_out.win_rate,
            "held-out/low": held_out.low,
            "held-out/high": held_out.high,
            "held-out/tokens-per-win": held_out.tokens_per_win,
            **{f"family/{name}": stats.win_rate for name, stats in record.families.items()},
        }
    return {name: number for name, number in numbers.items() if number is not None}


class TensorBoard:
    """Event files in ``RUN/tensorboard``, written by torch's `SummaryWriter`."""

    def __init__(self, config: RunConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(Path(config.out) / FOLDER))

    def log(self, record: CycleRecord) -> None:
        for name, number in curves(record).items():
            self._writer.add_scalar(name, number, record.cycle)
        self._writer.add_text("gate/decision", f"{record.decision}: {record.reason}", record.cycle)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackio:
    """A run of Trackio's project `fedoel`, in the folder that TRACKIO_DIR names; a run that goes on is continued."""

    def __init__(self, config: RunConfig) -> None:
        import trackio

        with redirect_stdout(io.StringIO()):  # advice that docs/simulate.md gives
            self._run = trackio.init(
                PROJECT, config.out, config=config.to_flat(), resume="allow" if config.resume else "never",
                embed=False, auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip

    def log(self, record: CycleRecord) -> None:
        decision = {"gate/decision": record.decision, "gate/reason": record.reason}
        self._run.log({**curves(record), **decision}, step=record.cycle)

    def close(self) -> None:
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()  # type: ignore[no-untyped-call]


TRACKERS: Mapping[str, Callable[[RunConfig], Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoard, "trackio": Trackio}
)


def check_trackers(names: Sequence[str]) -> None:
    """Raise `ConfigError` if the library of one of these trackers is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"--track {name} needs {name}, which is not installed: pip install 'fedoel[{name}]'")


@contextmanager
def tracked(names: Sequence[str], config: RunConfig, listener: Listener) -> Iterator[Listener]:
    """Keep the curves of a run that goes on inside the ``with`` block.

    Parameters
    ----------
    names
        Trackers, each of which is one of `TRACKERS`.
    listener
        Gets every event first.

    Yields
    ------
    callable
        The listener to give to an event log.
    """
    trackers: dict[str, Tracker] = {}

    def attempt(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # of a library that only shows what happens
            trackers.pop(name, None)
            print(f"fedoel: --track {name} fails and is left out: {error!r}", file=sys.stderr)

    def begin(name: str) -> None:
        trackers[name] = TRACKERS[name](config)

    def listen(event: Event) -> None:
        listener(event)
        if isinstance(event, CycleFinished):
            for name, tracker in list(trackers.items()):
                attempt(name, partial(tracker.log, event.entry))

    for name in dict.fromkeys(names):
        attempt(name, partial(begin, name))
    try:
        yield listen
    finally:
        for name, tracker in list(trackers.items()):
            attempt(name, tracker.close)
