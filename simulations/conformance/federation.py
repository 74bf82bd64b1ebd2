"""A small federation with a plug-in: any plug-in must complete whole cycles."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import RunConfig, Scalar
from ...server.cycle.phases import cycle_folder
from ..inprocess import run_inprocess
from .checks import demand

SETTINGS: dict[str, Scalar] = {
    "name": "check-plugin", "clients": 8, "cycles": 2, "policy.backend": "tactics", "games.per-client": 3,
    "games.families": "frozen-lake size=3 turns=6", "games.rehearsal": 8, "games.gate": 4, "games.held-out": 8,
}  # fmt: skip


def go_through_a_run(**settings: Scalar) -> None:
    """Run two cycles twice, and compare the aggregates.

    Raises
    ------
    AssertionError
        If a cycle accepted no vector, or the second run gives another aggregate.
    """
    flat = {**SETTINGS, **{key.replace("__", ".").replace("_", "-"): value for key, value in settings.items()}}
    noisy = flat.get("privacy.mechanism", "none") != "none"
    first, *repeats = [_aggregates(flat) for _ in range(1 if noisy else 2)]
    for number, arrays in enumerate(first, start=1):
        demand(arrays["accepted"], f"no vector was used in cycle {number}: {arrays['refused']}")
    for repeat in repeats:
        for one, other in zip(first, repeat, strict=True):
            same = np.array_equal(one["vector"], other["vector"])
            demand(same, "the same run gives another aggregate the second time: draw from a generator with a seed")


def _aggregates(settings: dict[str, Scalar]) -> list[dict[str, Any]]:
    """Run the federation, and read the aggregate of each cycle."""
    with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder, quiet():
        out = Path(folder) / "run"
        run_inprocess(RunConfig.from_flat({**settings, "out": str(out), "cache": str(Path(folder) / "cache")}))
        return [_collected(cycle_folder(out, cycle) / "collect.npz") for cycle in (1, 2)]


def _collected(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as phase:
        values: dict[str, Any] = json.loads(phase["values"].tobytes())
        vector: NDArray[np.float32] = phase["vector"] if "vector" in phase.files else np.zeros(0, np.float32)
    return {**values, "vector": vector}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Flower's log."""
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
