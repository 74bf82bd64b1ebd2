"""``summary.json`` of a run: built from finished phases, written whole, and read back.

The log of a run tells every cycle as soon as it ends. The summary is written anew after each of the first cycles, and
then whenever their number has doubled, and after the last: what a cycle costs must not grow with the cycles before it.
Whoever reads the summary of a run that has not ended reads the cycles that it lacks from the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..protocol.errors import ConfigError
from ..protocol.host.files import write_whole
from ..protocol.play import Trajectory
from ..protocol.records.json_codec import from_json, from_stored, to_json, to_stored
from ..protocol.records.summary import CycleRecord, Results, Summary
from .evaluation import by_family, summarise
from .events import LOG

NAME = "summary.json"
SHOWN = 8  # cycles in an error
FIRST_CYCLES = 16  # after each of which the summary is written
REMEDY = "give the folder of a run, or finish the run with: fedoel simulate ... --resume"


def results_of(trajectories: Sequence[Trajectory]) -> Results:
    """Sum up episodes, overall and by family."""
    return Results.of(summarise(trajectories), by_family(trajectories))


def bounds_of(cohort: int) -> str:
    """Say a number of devices in bounds, which name no single one: ``8 to 15 devices``."""
    if cohort < 2:
        return "no device" if not cohort else "1 device"
    low = 1 << (cohort.bit_length() - 1)
    return f"{low} to {2 * low - 1} devices"


def games_of(record: CycleRecord) -> str:
    """Say which games a record's results are of."""
    return "the fleet's own games" if record.by_fleet else "held-out games"


def wins(record: CycleRecord) -> str:
    """Say how often the version after a cycle won, and of which games: ``55% of held-out games``."""
    if not record.held_out.episodes:
        return f"wins of {games_of(record)} not measured"
    return f"{record.held_out.win_rate:.0%} of {games_of(record)}"


def write_summary(run: Path, summary: Summary) -> Path:
    """Write ``summary.json`` into the folder of a run, whole or not at all.

    Raises
    ------
    FedoelError
        If the disk refuses it.
    """
    path = run / NAME
    write_whole(path, _text(summary, map(to_json, summary.cycles)))
    return path


def update_summary(run: Path, summary: Summary, cycle: int, due: bool) -> None:
    """Write ``summary.json`` of a run after a cycle, if it is time.

    Parameters
    ----------
    summary
        The run without its cycles, which are read from the log, one after the other.
    due
        Whether it is written whatever the number of the cycle: the last one, and the last that a resumed run had
        finished before, since the settings in the summary may have changed.

    Raises
    ------
    FedoelError
        If the disk refuses it.
    """
    doubled = cycle & (cycle - 1) == 0
    if due or cycle < FIRST_CYCLES or doubled:
        write_whole(run / NAME, _text(summary, _logged(run / LOG, range(cycle + 1))))


def _text(summary: Summary, cycles: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Return a summary as it is written, in parts, with these cycles."""
    head = json.dumps(to_stored(replace(summary, cycles=())), indent=1)
    yield head.removesuffix("]\n}").encode()
    separator = "\n"
    for cycle in cycles:
        lines = json.dumps(cycle, indent=1).splitlines()
        yield (separator + "\n".join(f"  {line}" for line in lines)).encode()
        separator = ",\n"
    yield b"]\n}" if separator == "\n" else b"\n ]\n}"


def _logged(log: Path, cycles: range) -> Iterator[dict[str, Any]]:
    """Return some cycles as a log tells them; one that a resumed run has told again, as it told it last."""
    positions, position = dict[int, int](), 0
    with log.open("rb") as file:
        for line in file:
            if b"cycle_finished" in line and (cycle := _cycle(line)) in cycles:
                positions[cycle] = position
            position += len(line)
        for cycle in sorted(positions):
            file.seek(positions[cycle])
            yield json.loads(file.readline())["entry"]


def _cycle(line: bytes) -> int:
    """Return the number of the cycle whose end a line of a log tells, -1 if it does not, or was torn."""
    try:
        event = json.loads(line)
        return int(event["cycle"]) if event["event"] == "cycle_finished" else -1
    except (ValueError, KeyError, TypeError):
        return -1


def read_summary(run: Path) -> Summary:
    """Read ``summary.json`` of a run, and the cycles that it lacks from the log of a run that has not ended.

    Raises
    ------
    ConfigError
        If the file is missing or is not JSON, its schema is newer, one of its fields cannot be read, or a cycle is
        missing or there twice.
    """
    path = run / NAME
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); {REMEDY}") from error
    summary = from_stored(Summary, table, path, REMEDY)
    if (numbers := [record.cycle for record in summary.cycles]) != list(range(len(numbers))):
        raise ConfigError(f"{path} has the cycles {_first(numbers)}, and not each of them once from 0 on; {REMEDY}")
    later = later_cycles(run, len(summary.cycles), int(summary.config.get("cycles", 0)))
    return replace(summary, cycles=(*summary.cycles, *(from_json(CycleRecord, entry) for entry in later)))


def _first(numbers: Sequence[int]) -> str:
    """Show the first of many numbers."""
    return f"{', '.join(map(str, numbers[:SHOWN]))}{', ...' * (len(numbers) > SHOWN)}"


def later_cycles(run: Path, known: int, cycles: int) -> list[dict[str, Any]]:
    """Return what a log tells of cycles that ``summary.json`` does not have yet; nothing if there is no log.

    Parameters
    ----------
    known, cycles
        Number of cycles that it has, cycle 0 included, and of those that the run will have, without cycle 0.
    """
    return list(_logged(run / LOG, range(known, cycles + 1))) if (run / LOG).is_file() else []
