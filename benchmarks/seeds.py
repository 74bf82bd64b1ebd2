"""One Markdown table from the runs of several seeds: the mean over seeds, and from the lowest to the highest.

    python benchmarks/seeds.py benchmarks/results/standard-*

The line below the table compares student and teacher where both played the same games with the same random streams: on
the gate's games of every promoted cycle.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedoel.simulations.experiment_table import rates, spread
from fedoel.simulations.summary import families, load_summary

Entry = dict[str, Any]
FLOORS = {
    "random": "uniform random",
    "tactics_only": "tactics only",
    "heuristic": "rules",
    "walkthrough": "walkthrough",
}


def main(folders: Sequence[str]) -> None:
    """Print the table of the runs in these folders."""
    runs = [load_summary(Path(folder)) for folder in folders]
    names = families(runs[0])
    cycles = min(len(run["cycles"]) for run in runs)
    print("| cycle | held-out wins | teacher | " + " | ".join(names) + " | turns per win | tokens per win | minutes |")
    print("|" + "---|" * (6 + len(names)))
    for cycle in range(cycles):
        entries = [run["cycles"][cycle] for run in runs]
        cells = [
            f"**{rates([entry['held_out'] for entry in entries])}**",
            rates([entry["teacher"] for entry in entries if entry["teacher"]]),
            *(rates([entry["families"][name] for entry in entries]) for name in names),
            *(spread([e["held_out"][key] for e in entries], "{:.0f}") for key in ("turns_per_win", "tokens_per_win")),
            spread([sum(e["seconds"].values()) / 60 for e in entries], "{:.0f}"),
        ]
        print(f"| {cycle} | " + " | ".join(cells) + " |")
    for key, label in FLOORS.items():
        floors = [run["floors"][key] for run in runs]
        by_family = [rates([floor["families"][name] for floor in floors]) for name in names]
        print(f"| {label} | {rates(floors)} | | {' | '.join(by_family)} | | | |")
    print(f"\n{len(runs)} seeds: {', '.join(str(run['seed']) for run in runs)}. {kept(runs)}")


def kept(runs: Sequence[Entry]) -> str:
    """Say how much of the teachers' gain on the gate's games the students have: of every cycle, and since the start."""
    promoted = [(run, entry["gate"]) for run in runs for entry in run["cycles"][1:] if entry["decision"] == "promoted"]
    if not promoted:
        return "No cycle was promoted."
    last = [
        (run["cycles"][1]["gate"]["current"], gates[-1])
        for run in runs
        if run["cycles"][1]["gate"] and (gates := [gate for owner, gate in promoted if owner is run])
    ]
    steps = gain([(gate["current"], gate) for _, gate in promoted])
    return f"Gain on the gate's games, student of teacher: {steps} in a cycle on average, {gain(last)} in the end."


def gain(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """Say the mean gain in points of student and teacher over what each gate is compared with."""
    student, teacher = (
        100 * fmean(gate[player]["win_rate"] - before["win_rate"] for before, gate in pairs)
        for player in ("candidate", "teacher")
    )
    share = f" ({student / teacher:.0%})".replace("%", " %") if teacher > 0 else ""
    return f"{student:.0f} of {teacher:.0f} points{share}"


if __name__ == "__main__":
    main(sys.argv[1:])
