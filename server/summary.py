"""The summary of a run: what `summary.json` says, built from finished phases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..protocol.host.files import write_whole
from ..protocol.play import Trajectory
from .evaluation import by_family, summarise

Entry = dict[str, Any]


def stats_of(trajectories: Sequence[Trajectory]) -> Entry:
    """Results overall and by family, ready for JSON."""
    families = {name: asdict(stats) for name, stats in by_family(trajectories).items()}
    return {**asdict(summarise(trajectories)), "families": families}


def without_families(stats: Mapping[str, Any]) -> Entry:
    """Only the overall results."""
    return {key: value for key, value in stats.items() if key != "families"}


def write_summary(out: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``summary.json``, whole or not at all.

    Raises
    ------
    FedoelError
        If the disk refuses it.
    """
    path = out / "summary.json"
    write_whole(path, json.dumps(summary, indent=1).encode())
    return path
