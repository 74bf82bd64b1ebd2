"""One Markdown table from the runs of several seeds: the mean over seeds, and from the lowest to the highest.

    python benchmarks/seeds.py benchmarks/results/standard-*

The line below the table compares student and teacher where both played the same games with the same random streams: on
the gate's games of every promoted cycle, if contexts were tried.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from fedoel.protocol.records.summary import GateRecord, Stats, Summary
from fedoel.simulations.experiment_table import rates, spread
from fedoel.simulations.summary import load_summary

FLOORS = {
    "random": "uniform random",
    "tactics_only": "tactics only",
    "heuristic": "rules",
    "walkthrough": "walkthrough",
}


def main(folders: Sequence[str]) -> None:
    """Print the table of the runs in these folders."""
    runs = [load_summary(Path(folder)) for folder in folders]
    names = runs[0].families
    cycles = min(len(run.cycles) for run in runs)
    print("| cycle | held-out wins | teacher | " + " | ".join(names) + " | turns per win | tokens per win | minutes |")
    print("|" + "---|" * (6 + len(names)))
    for cycle in range(cycles):
        records = [run.cycles[cycle] for run in runs]
        cells = [
            f"**{rates([record.held_out for record in records])}**",
            rates([record.teacher for record in records if record.teacher]),
            *(rates([record.families[name] for record in records]) for name in names),
            spread([record.held_out.turns_per_win for record in records], "{:.0f}"),
            spread([record.held_out.tokens_per_win for record in records], "{:.0f}"),
            spread([sum(record.seconds.values()) / 60 for record in records], "{:.0f}"),
        ]
        print(f"| {cycle} | " + " | ".join(cells) + " |")
    for key, label in FLOORS.items():
        floors = [run.floors.named()[key] for run in runs]
        by_family = [rates([floor.families[name] for floor in floors]) for name in names]
        print(f"| {label} | {rates(floors)} | | {' | '.join(by_family)} | | | |")
    print(f"\n{len(runs)} seeds: {', '.join(str(run.seed) for run in runs)}. {kept(runs)}")


def kept(runs: Sequence[Summary]) -> str:
    """Say how much of the teachers' gain on the gate's games the students have: of every cycle, and since the start."""
    promoted = [[gate for r in run.cycles[1:] if (gate := r.gate) and r.decision == "promoted"] for run in runs]
    if not any(promoted):
        return "No cycle was promoted."
    if not all(gate.teacher.episodes for gates in promoted for gate in gates):
        return "Contexts were not tried in every run."
    last = [
        (first.current, gates[-1])
        for run, gates in zip(runs, promoted, strict=True)
        if gates and (first := run.cycles[1].gate)
    ]
    steps = gain([(gate.current, gate) for gates in promoted for gate in gates])
    return f"Gain on the gate's games, student of teacher: {steps} in a cycle on average, {gain(last)} in the end."


def gain(pairs: Sequence[tuple[Stats, GateRecord]]) -> str:
    """Say the mean gain in points of student and teacher over what each gate is compared with."""
    student = 100 * fmean(gate.candidate.win_rate - before.win_rate for before, gate in pairs if gate.candidate)
    teacher = 100 * fmean(gate.teacher.win_rate - before.win_rate for before, gate in pairs)
    share = f" ({student / teacher:.0%})".replace("%", " %") if teacher > 0 else ""
    return f"{student:.0f} of {teacher:.0f} points{share}"


if __name__ == "__main__":
    main(sys.argv[1:])
