"""What a simulated client costs in fleets of different sizes, without a language model: ours, and Flower's simulation.

    python benchmarks/scale.py --clients 10,100,1000,10000 --out runs/scale
    python benchmarks/scale.py --clients 10,100,300 --engine ray --out runs/scale
    python benchmarks/scale.py --clients 10000 --processes 2 --out runs/scale

One cycle for each size, in a process of its own: every client plays one game of Frozen Lake, and answers through
Flower's messages. Engine `ray` runs the same ClientApp under `flwr run`. Seconds are from a checked configuration to
the finished summary; those of the processor are of all processes, and of the one that took most: where each process
has a processor, a run takes about as long. Adds the rows to costs.json, and writes table.md and cost.svg of all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.host.cache import cache_folder
from fedoel.protocol.host.processes import descendants
from fedoel.server.machine import this_machine
from fedoel.simulations.figures import GRID, LEARNED, MUTED, TACTICS, TEACHER, save_figure
from fedoel.simulations.inprocess import check, run_inprocess
from fedoel.simulations.prompts import with_pack
from fedoel.simulations.ray_engine import run_ray

SETTINGS: dict[str, Scalar] = {
    "cycles": 1, "games.families": "frozen-lake size=4 turns=10", "games.partition": "iid", "games.per-client": 1,
    "games.rehearsal": 8, "games.gate": 4, "games.held-out": 8, "games.held-out-teacher": 4, "strategy.name": "mean",
    "policy.backend": "tactics", "trial.games": 1, "server.pack": 40, "server.prompts-per-cycle": 20,
}  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.25
COLOURS = {("inprocess", 1): LEARNED, ("inprocess", 2): TACTICS, ("ray", 1): TEACHER}
COSTS = "costs.json"


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Parameters
    ----------
    processes
        Of the engine `inprocess`; Ray takes one actor per processor.
    wall, cpu, longest
        Seconds on the clock, of processor time of all processes, and of the process that took most.
    megabytes
        Sum over the processes of the most memory that each held, shared memory counted in each.
    commit
        The code that was measured.
    """

    clients: int
    engine: str
    processes: int
    wall: float
    cpu: float
    longest: float
    megabytes: float
    commit: str

    @property
    def arm(self) -> tuple[str, int]:
        return self.engine, self.processes

    @property
    def milliseconds(self) -> float:
        """Processor time of a client."""
        return 1000 * self.cpu / self.clients


@contextmanager
def watched(seconds: dict[int, float], megabytes: dict[int, float]) -> Iterator[None]:
    """Write down what this process and its descendants use, by process, several times a second."""
    ended = threading.Event()

    def sample() -> None:
        for pid in (os.getpid(), *descendants(os.getpid())):
            with suppress(OSError, ValueError):  # it has ended
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS
                resident = 1e-6 * int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
                megabytes[pid] = max(megabytes.get(pid, 0.0), resident)

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            sample()

    sample()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
        sample()
    finally:
        ended.set()
        thread.join()


def cost(clients: int, engine: str, processes: int, out: Path) -> Cost:
    """Run a cycle in this process."""
    config = RunConfig.from_flat({**SETTINGS, "clients": clients, "out": str(out.absolute())})
    config = with_pack(config, cache_folder(config))
    check(config)
    seconds, megabytes = dict[int, float](), dict[int, float]()
    started = time.monotonic()
    before = time.process_time()
    with watched(seconds, megabytes):
        if engine == "ray":
            run_ray(config)
        else:
            run_inprocess(config, processes=processes)
    seconds[os.getpid()] -= before
    return Cost(
        clients, engine, processes, time.monotonic() - started, sum(seconds.values()), max(seconds.values()),
        sum(megabytes.values()), this_machine(config.policy).commit,
    )  # fmt: skip


def table(costs: Sequence[Cost]) -> str:
    """Return the costs as a table in Markdown."""
    lines = [
        "| engine | processes | clients | wall, s | CPU, s | of the longest process, s | CPU a client, ms | memory, MB "
        "| commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.engine} | {one.processes} | {one.clients:,} | {one.wall:.1f} | {one.cpu:.1f} | {one.longest:.1f} | "
        f"{one.milliseconds:.2f} | {one.megabytes:.0f} | `{one.commit}` |"
        for one in costs
    ]
    return "\n".join(lines) + "\n"


def figure(costs: Sequence[Cost]) -> Figure:
    """Draw processor time against the number of clients, one line for each engine of which there are two sizes."""
    drawing = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = drawing.add_subplot()
    for arm in dict.fromkeys(one.arm for one in costs):
        rows = [one for one in costs if one.arm == arm]
        if len(rows) < 2:
            continue
        colour, (engine, processes) = COLOURS.get(arm, MUTED), arm
        ours = f"fedoel, {processes} processes" if processes > 1 else "fedoel"
        name = "Flower's simulation on Ray" if engine == "ray" else ours
        axes.plot([one.clients for one in rows], [one.cpu for one in rows], color=colour, marker="o", linewidth=2)
        axes.annotate(
            f"{name}\n{rows[-1].milliseconds:,.1f} ms a client", (rows[-1].clients, rows[-1].cpu), xytext=(8, -4),
            textcoords="offset points", color=colour, annotation_clip=False,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(7, 3e6)  # room for the names
    axes.set_xticks([10**power for power in range(1, 6)], [f"{10**power:,}" for power in range(1, 6)])
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("clients")
    axes.set_title("Processor seconds of a cycle, the same app", loc="left", fontsize=11, fontweight="bold")
    return drawing


def write(out: Path, measured: Cost | None = None) -> str:
    """Add a row to those in a folder, write table and figure of all, and return the table."""
    file = out / COSTS
    rows = [Cost(**row) for row in json.loads(file.read_text())] if file.exists() else []
    if measured is not None:
        rows = [row for row in rows if (row.arm, row.clients) != (measured.arm, measured.clients)] + [measured]
    rows.sort(key=lambda row: (row.arm, row.clients))
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    (out / "table.md").write_text(table(rows))
    if rows:
        save_figure(lambda: figure(rows), out / "cost")
    return table(rows)


def main() -> None:
    """Measure every size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="10,100,1000,10000")
    parser.add_argument("--engine", choices=("inprocess", "ray"), default="inprocess")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    engine, processes, out = arguments.engine, arguments.processes, arguments.out
    if arguments.one:
        run = out / f"{engine}-{processes}-{arguments.one}"
        print(json.dumps(asdict(cost(arguments.one, engine, processes, run))))
        return
    out.mkdir(parents=True, exist_ok=True)
    for clients in arguments.clients.split(","):
        command = [sys.executable, __file__, "--one", clients, "--engine", engine, "--processes", str(processes)]
        printed = subprocess.check_output([*command, "--out", str(out)])
        print(write(out, Cost(**json.loads(printed.splitlines()[-1]))), flush=True)


if __name__ == "__main__":
    main()
