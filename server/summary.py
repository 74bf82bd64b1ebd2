"""``summary.json`` of a run: built from finished phases, written whole, and read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..protocol.errors import ConfigError
from ..protocol.host.files import write_whole
from ..protocol.play import Trajectory
from ..protocol.records.json_codec import from_stored, to_stored
from ..protocol.records.summary import CycleRecord, Results, Summary
from .evaluation import by_family, summarise

NAME = "summary.json"
REMEDY = "give the folder of a run, or finish the run with: fedoel simulate ... --resume"


def results_of(trajectories: Sequence[Trajectory]) -> Results:
    """Sum up episodes, overall and by family."""
    return Results.of(summarise(trajectories), by_family(trajectories))


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
    write_whole(path, json.dumps(to_stored(summary), indent=1).encode())
    return path


def read_summary(run: Path) -> Summary:
    """Read ``summary.json`` of a run.

    Raises
    ------
    ConfigError
        If the file is missing or is not JSON, its schema is newer, or one of its fields cannot be read.
    """
    path = run / NAME
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); {REMEDY}") from error
    return from_stored(Summary, table, path, REMEDY)
