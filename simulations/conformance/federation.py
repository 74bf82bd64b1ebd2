"""A small federation with a plug-in in its place: whatever it is, it has to go through whole cycles."""

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
    """Run two cycles twice, and compare.

    Raises
    ------
    AssertionError
        If a cycle accepted nothing, or the same run gives another aggregate the second time.
    """
    given = {**SETTINGS, **{key.replace("__", ".").replace("_", "-"): value for key, value in settings.items()}}
    noisy = given.get("privacy.mechanism", "none") != "none"
    first, *others = [_aggregates(given) for _ in range(1 if noisy else 2)]
    for number, arrays in enumerate(first, start=1):
        demand(arrays["accepted"], f"no vector was used in cycle {number}: {arrays['refused']}")
    for again in others:
        for one, other in zip(first, again, strict=True):
            same = np.array_equal(one["vector"], other["vector"])
            demand(same, "the same run gives another aggregate the second time: draw from a generator with a seed")


def _aggregates(settings: dict[str, Scalar]) -> list[dict[str, Any]]:
    """Run, and read what each cycle collected."""
    with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder, quiet():
        out = Path(folder) / "run"
        run_inprocess(RunConfig.from_flat({**settings, "out": str(out), "cache": str(Path(folder) / "cache")}))
        return [_collected(cycle_folder(out, cycle) / "collect.npz") for cycle in (1, 2)]


def _collected(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as kept:
        values: dict[str, Any] = json.loads(kept["values"].tobytes())
        vector: NDArray[np.float32] = kept["vector"] if "vector" in kept.files else np.zeros(0, np.float32)
    return {**values, "vector": vector}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Flower's log of rounds out of a list of checks."""
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
