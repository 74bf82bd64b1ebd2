"""Outcomes of stages on disk. A stage that has ended is not run again, so a run can be killed at any moment."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import FedoelError
from ...protocol.host.files import move_into_place, write_whole
from ...protocol.host.memory import return_free_memory
from ...protocol.records.json_codec import from_json, to_json
from ..events import Advance, EventLog

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage leaves in a file: values that JSON can hold, and arrays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form(Generic[Result]):
    """How a stage's typed result is written to a file, and read from one."""

    write: Callable[[Result], Outcome]
    read: Callable[[Outcome], Result]


def record_form(record: type[Result]) -> Form[Result]:
    """Return the form of a record without arrays."""
    return Form(lambda result: Outcome(to_json(result)), lambda outcome: from_json(record, dict(outcome.values)))


@dataclass(frozen=True)
class Phases:
    """Runs each stage once. One that finished in an earlier process is read instead."""

    run_folder: Path
    log: EventLog

    def run(
        self, cycle: int, name: str, form: Form[Result], work: Callable[[Advance], Result], total: int | None = None
    ) -> Result:
        """Run a stage and keep its result, or read the result that it left.

        Parameters
        ----------
        name
            Of the file, and of the phase in the log.
        total
            How often `work` is going to report progress; None if that is not known.
        """
        if self.finished(cycle, name):
            return form.read(self.load(cycle, name))
        with self.log.phase(cycle, name, total) as advance:
            result = work(advance)
            self.keep(cycle, name, form.write(result))
        return_free_memory()
        return result

    def finished(self, cycle: int, name: str) -> bool:
        """Whether a stage has left its outcome."""
        return _path(self.run_folder, cycle, name).exists()

    def keep(self, cycle: int, name: str, outcome: Outcome) -> None:
        """Write an outcome so that it is there whole or not at all.

        Raises
        ------
        FedoelError
            If the disk refuses it.
        """
        buffer = io.BytesIO()
        values = np.frombuffer(json.dumps(outcome.values).encode(), np.uint8)
        np.savez(buffer, values=values, **outcome.arrays)  # type: ignore[arg-type]
        write_whole(_path(self.run_folder, cycle, name), buffer.getvalue())

    def load(self, cycle: int, name: str) -> Outcome:
        """Read what a finished stage left.

        Raises
        ------
        FedoelError
            If the file is damaged or not there.
        """
        return load_phase(self.run_folder, cycle, name)


def load_phase(run: Path, cycle: int, name: str) -> Outcome:
    """Read a finished phase of a run, of this one or another; raises as `Phases.load`."""
    path = _path(run, cycle, name)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        return Outcome(json.loads(arrays.pop("values").tobytes()), arrays)
    except FileNotFoundError as error:
        raise FedoelError(f"{path} is not there: this phase has not been finished") from error
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise FedoelError(f"{path} is damaged ({error}); delete it and go on with --resume") from error


def _path(run: Path, cycle: int, name: str) -> Path:
    return cycle_folder(run, cycle) / f"{name}.npz"


def cycle_folder(run: Path, cycle: int) -> Path:
    """Where a run keeps the phases of a cycle."""
    return run / "checkpoints" / f"cycle-{cycle:03d}"


def lend_cycle(lender: Path, borrower: Path, cycle: int = 0) -> None:
    """Give a run that has not begun a cycle all phases that another left of it, or none."""
    begun = cycle_folder(borrower, cycle)
    if not begun.exists():
        part = begun.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(cycle_folder(lender, cycle), part)
        move_into_place(part, begun)
