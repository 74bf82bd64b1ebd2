"""What grows while something runs for long: samples, lines that are fitted to them, and a table with a verdict a row.

A quantity that has to stay the same, such as memory, is *flat*: a line through the second half of its samples rises by
no more than a share of its height in a hundred cycles. A quantity that is kept on purpose, such as a journal, grows by
so much a cycle: then what it grows by is *even*, no more in the second half than in the first, but for a share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PER = 100  # cycles of which a flat quantity's rise is told


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a quantity may grow.

    Parameters
    ----------
    name
        Key of the quantity in samples.
    what
        What it is, for people, with its unit.
    share
        Largest rise of a flat quantity in `PER` cycles, of its mean; or by how much a cycle of the second half may
        exceed one of the first.
    kept
        Whether it is kept on purpose.
    scale
        What values are divided by, for people.
    """

    name: str
    what: str
    share: float
    kept: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a quantity: its first and last value, the rise of its second half, and whether that is allowed."""

    bound: Bound
    first: float
    last: float
    rise: float
    share: float

    @property
    def allowed(self) -> bool:
        return self.share <= self.bound.share


def growth(bound: Bound, samples: Sequence[Mapping[str, float]]) -> Growth:
    """Fit a line to a quantity in the second half of the samples, each of which has a `cycle`."""
    cycles = np.array([sample["cycle"] for sample in samples])
    values = np.array([sample[bound.name] for sample in samples]) / bound.scale
    half = len(samples) // 2
    # Rounded, because a fit to equal values has a slope of about 1e-16.
    late = round(float(np.polyfit(cycles[half:], values[half:], 1)[0]), 9) + 0.0  # no minus zero
    if not bound.kept:
        share = late * PER / max(float(values[half:].mean()), 1e-9)
        return Growth(bound, float(values[0]), float(values[-1]), late * PER, share)
    early = float(np.polyfit(cycles[: half + 1], values[: half + 1], 1)[0])
    return Growth(bound, float(values[0]), float(values[-1]), late * PER, late / max(early, 1e-9) - 1)


def table(found: Iterable[Growth]) -> str:
    """Write what was found for people."""
    lines = [
        f"| quantity | first | last | rise in {PER} cycles | as a share | bound | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        of = "more than before" if each.bound.kept else "of the mean"
        lines.append(
            f"| {each.bound.what} | {each.first:,.4g} | {each.last:,.4g} | {each.rise:+,.3g} | "
            f"{each.share:+.2%} {of} | {each.bound.share:.0%} | {'' if each.allowed else 'GROWS'} |"
        )
    return "\n".join(lines) + "\n"


def process_size(pid: int | str = "self") -> dict[str, float]:
    """Return kilobytes in memory, open files and threads of a process (Linux only)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return {
        "memory": float(status["VmRSS"].split()[0]),
        "files": float(len(os.listdir(f"/proc/{pid}/fd"))),
        "threads": float(status["Threads"]),
    }


def bytes_of(*paths: Path) -> float:
    """Return how many bytes some files, and the files below some folders, have."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return float(sum(file.stat().st_size for file in files if file.is_file()))
