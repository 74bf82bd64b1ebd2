"""What a simulated client costs in fleets of different sizes, without a language model.

    python benchmarks/scale.py --clients 100,1000,10000 --out runs/scale

One cycle for each size, in a process of its own: every client plays one game of Frozen Lake, and answers through
Flower's messages. Times are of that process, from a checked configuration to the finished summary. Writes table.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.host.cache import cache_folder
from fedoel.simulations.inprocess import check, run_inprocess
from fedoel.simulations.prompts import with_pack

SETTINGS: dict[str, Scalar] = {
    "cycles": 1, "games.families": "frozen-lake size=4 turns=10", "games.partition": "iid", "games.per-client": 1,
    "games.rehearsal": 8, "games.gate": 4, "games.held-out": 8, "games.held-out-teacher": 4, "strategy.name": "mean",
    "policy.backend": "tactics", "trial.games": 1, "server.pack": 40, "server.prompts-per-cycle": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Parameters
    ----------
    wall, cpu
        Seconds on the clock and of processor time.
    megabytes
        Most memory that the process held.
    """

    clients: int
    wall: float
    cpu: float
    megabytes: float


def cost(clients: int, out: Path) -> Cost:
    """Run a cycle in this process."""
    config = RunConfig.from_flat({**SETTINGS, "clients": clients, "out": str(out)})
    config = with_pack(config, cache_folder(config))
    check(config)
    wall, cpu = time.monotonic(), time.process_time()
    run_inprocess(config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(clients, time.monotonic() - wall, time.process_time() - cpu, peak)


def table(costs: Sequence[Cost]) -> str:
    """Return the costs as a table in Markdown; a client's in relation to the first row's."""
    lines = ["| clients | wall, s | CPU, s | CPU a client, ms | times the first row | peak memory, MB |"]
    lines.append("|---|---|---|---|---|---|")
    first = costs[0].cpu / costs[0].clients
    for one in costs:
        each = one.cpu / one.clients
        lines.append(
            f"| {one.clients:,} | {one.wall:.1f} | {one.cpu:.1f} | {1000 * each:.2f} | {each / first:.2f} | "
            f"{one.megabytes:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="100,1000,10000")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(cost(arguments.one, arguments.out / str(arguments.one)))))
        return
    costs = list[Cost]()
    for clients in map(int, arguments.clients.split(",")):
        command = [sys.executable, __file__, "--one", str(clients), "--out", str(arguments.out)]
        costs.append(Cost(**json.loads(subprocess.check_output(command).splitlines()[-1])))
        (arguments.out / "table.md").write_text(table(costs))
        print(table(costs), flush=True)


if __name__ == "__main__":
    main()
