"""Everything that goes wrong with a fleet, on purpose: does the run complete, are its sums right, is nothing lost?

    python benchmarks/fleet_drill.py --out benchmarks/results/fleet

A server and five devices run as processes on this machine, with TLS, node authentication and a secure sum, the real
base model in llama.cpp on the devices, and torch on the server. One misfortune a cycle: a device loses its power in
each of the five phases; it stops in each of them, as a machine that sleeps (SIGSTOP), and goes on when the cycle has
ended (SIGCONT); the process for a message hangs, while the rest of the device says that it lives; the network is cut
for a moment and for longer than Flower takes a silent node for alive; and the server loses its power. Devices that died
or gave up are started again, as their service does: a SuperNode whose connection breaks while it is being made gives
up, for one.

After each cycle the released aggregate is compared, to the last bit, with the sum of the vectors of the devices that
are in it, made again from the games that they have logged; a sum of nothing counts as wrong. Few games and few steps
are enough here: what is learned is not the point, and contexts are small, so that players stay undecided. Times are by
the clock of a machine that may be doing other things; the table says how busy it was.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from fedoel.client.device.start import TASK as MODULE
from fedoel.protocol.host.forked import name_of
from fedoel.protocol.host.processes import descendants
from fedoel.protocol.records.events import PhaseStarted
from fedoel.protocol.records.summary import CycleRecord
from fedoel.protocol.secagg.device import PHASES
from fedoel.protocol.secagg.messages import ACTIONS
from fedoel.server.events import read_events
from fedoel.server.summary import NAME, read_summary
from fedoel.simulations.loopback import FLOWERS_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import STRATEGY, expected, released, stored

NAMES = ("one", "two", "three", "four", "five")
RUN = """\
cycles = {cycles}
[games]
families = "frozen-lake size=3 turns=6"
per-client = {games}
rehearsal = 4
gate = 4
held-out = 4
[policy]
backend = "{backend}"
threads = 1
weights = "file"
lora-layers = 4
[context]
max-kl = 0.02
[distil]
steps = 2
batch = 4
[warm-start]
steps = 4
batch = 4
[strategy]
name = "{strategy}"
options = "phase-timeout={seconds:g}"
min-available-nodes = 5
patience = 3600.0
[server]
public = "games"
"""
Misfortune = Callable[[int], Sequence[str]]
GAMES = 2  # of each device in a cycle
MOMENT = 5.0  # seconds of a short cut
TASK = name_of(MODULE)  # of a process for one message
PHASE = 45.0  # seconds that a device has for a phase in which it does not play, each of two times
STOP, HANG = "stop-", "hang-"  # in front of a phase
LATEST = 1800.0  # seconds that a cycle may take


@dataclass(frozen=True, slots=True)
class Row:
    """One cycle: what happened to it, who is in its sum, whether the sum is right, and how long it took."""

    cycle: int
    what: str
    in_sum: int
    refused: Mapping[str, int]
    right: bool
    seconds: float
    decision: str


class Drill:
    """A fleet, and what is done to it."""

    def __init__(self, fleet: LoopbackFleet) -> None:
        self.fleet, self._seen = fleet, dict.fromkeys(NAMES, "")

    def nothing(self, cycle: int) -> Sequence[str]:
        """Leave it alone. Like the others, return who should be in the sum."""
        return NAMES

    def kill(self, phase: str, cycle: int) -> Sequence[str]:
        """Kill a device when it is asked in a phase."""
        victim = NAMES[cycle % len(NAMES)]
        self._wait_for(phase, [victim])
        self.fleet.kill(victim)
        return in_sum(victim, phase)

    def stop(self, phase: str, cycle: int) -> Sequence[str]:
        """Stop all processes of a device when it is asked in a phase; `go_on` behind the cycle lets them go on."""
        victim = NAMES[cycle % len(NAMES)]
        self._wait_for(phase, [victim])
        self.fleet.halt(victim)
        return in_sum(victim, phase)

    def hang(self, phase: str, cycle: int) -> Sequence[str]:
        """Stop the process that a device has for a phase's message, and nothing else of it."""
        victim = NAMES[cycle % len(NAMES)]
        self._wait_for(phase, [victim])
        self.wait(lambda: self.fleet.halt(victim, TASK), every=0.02)
        return in_sum(victim, phase)

    def go_on(self) -> None:
        """Let devices that were stopped go on."""
        for name in self.fleet.running.keys() & set(NAMES):
            self.fleet.go_on(name)

    def cut(self, seconds: float, cycle: int) -> Sequence[str]:
        """Cut the network while devices play."""
        self._wait_for("masked", NAMES[:1])
        self.fleet.wire.cut()
        time.sleep(seconds)
        self.fleet.wire.mend()
        return NAMES

    def server(self, cycle: int) -> Sequence[str]:
        """Kill the server while devices play, and start it again."""
        self._wait_for("masked", NAMES[:1])
        self.fleet.kill("server")
        self.fleet.start("server")
        return NAMES

    def wait(self, what: Callable[[], object], every: float = 0.2) -> None:
        """Wait for something, while services start again whatever has ended."""
        self.fleet.wait(lambda: self.fleet.tend() or what(), LATEST, every)  # type: ignore[func-returns-value]

    def mark(self) -> None:
        """From now on, count messages anew."""
        self._seen = {name: self.fleet.log(name) for name in NAMES}

    def _wait_for(self, phase: str, names: Sequence[str]) -> None:
        line = f"Receiving: {ACTIONS[phase]} message"
        self.wait(lambda: all(self.fleet.log(n).count(line) > self._seen[n].count(line) for n in names), every=0.02)


def in_sum(victim: str, phase: str) -> Sequence[str]:
    """Who should be in a sum in which a device is lost in a phase: who has sent its masked vector is."""
    sent = PHASES.index(phase) > PHASES.index("masked")
    return NAMES if sent else [name for name in NAMES if name != victim]


class Memory(Thread):
    """Looks how large a device's processes are, twice a second: the largest one, and all together, in MB."""

    def __init__(self, fleet: LoopbackFleet, name: str) -> None:
        super().__init__(daemon=True)
        self._fleet, self._name, self.one, self.all = fleet, name, 0, 0

    def run(self) -> None:
        while True:
            if (process := self._fleet.running.get(self._name)) is not None:
                sizes = [resident(pid) for pid in [process.pid, *descendants(process.pid)]]
                self.one, self.all = max(self.one, *sizes), max(self.all, sum(sizes))
            time.sleep(0.5)


def resident(pid: int) -> int:
    """Megabytes of a process in memory; 0 for one that is over (Linux only)."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    return 0


def main() -> None:
    """Run the drill, print a line a cycle, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("llama", "tactics"), default="llama")
    parser.add_argument("--heartbeat", type=int, default=FLOWERS_HEARTBEAT, help="seconds; Flower's own is 30")
    parser.add_argument(
        "--only",
        default="",
        help="nothing, a phase, stop- or hang- and a phase, short-cut, long-cut, server; commas between them",
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder to run in, which stays")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedoel-drill-") as made:
        fleet = LoopbackFleet((arguments.keep or Path(made)).absolute(), NAMES, arguments.heartbeat)
        try:
            found = drill(fleet, arguments.backend, arguments.only.split(",") if arguments.only else ())
        finally:
            fleet.end()
    print(table(found))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        (arguments.out / "table.md").write_text(table(found))
    if not found["good"]:
        raise SystemExit("something of this is wrong")


def drill(fleet: LoopbackFleet, backend: str, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run every misfortune once, or only some, a cycle each, after one without any."""
    doing, longer, memory = Drill(fleet), 3.0 * fleet.heartbeat, Memory(fleet, NAMES[0])
    plans: dict[str, tuple[str, Misfortune]] = {"nothing": ("nothing", doing.nothing)}
    plans |= {phase: (f"a device is killed when asked for `{phase}`", partial(doing.kill, phase)) for phase in PHASES}
    plans |= {
        f"{STOP}{phase}": (f"a device is stopped when asked for `{phase}`", partial(doing.stop, phase))
        for phase in PHASES
    }
    plans[f"{HANG}keys"] = ("a device's process for `keys` hangs", partial(doing.hang, "keys"))
    plans |= {
        name: (f"the network is cut for {seconds:.0f} s", partial(doing.cut, seconds))
        for name, seconds in (("short-cut", MOMENT), ("long-cut", longer))
    }
    plans["server"] = ("the server is killed", doing.server)
    chosen = [plans[name] for name in only] or list(plans.values())
    fleet.make(RUN.format(games=GAMES, cycles=len(chosen), backend=backend, strategy=STRATEGY, seconds=PHASE))
    fleet.start("server")
    fleet.wait(lambda: f"{len(NAMES)} devices may connect" in fleet.said("server"), LATEST)
    for name in NAMES:
        fleet.start(name)
    memory.start()
    rows, counted = [], Counter[str]()  # in how many sums each device is
    for cycle, (what, do) in enumerate(chosen, start=1):
        doing.mark()
        doing.wait(partial(_began, fleet, cycle))
        names = do(cycle)
        counted.update(names)
        doing.wait(partial(_ended, fleet, cycle))
        doing.go_on()
        rows.append(row_of(fleet, cycle, what, names))
        print(json.dumps(asdict(rows[-1])), flush=True)
    doing.wait(lambda: fleet.over("server"))
    complete = fleet.running.pop("server").returncode == 0
    doing.wait(lambda: set(NAMES) <= fleet.running.keys())
    left = {name: fleet.stop(name) for name in NAMES}
    contents = {name: stored(fleet.folder / name) for name in NAMES}
    stores = {name: (len(store.rows), len(store.damaged)) for name, store in contents.items()}
    whole = all(not damaged and episodes >= GAMES * counted[name] for name, (episodes, damaged) in stores.items())
    good = complete and whole and not any(left.values()) and all(row.right for row in rows)
    return {
        "backend": backend, "heartbeat": fleet.heartbeat, "load": round(os.getloadavg()[2], 1), "good": good,
        "complete": complete, "stores": stores, "versions": len(list((fleet.server / "run/versions").iterdir())),
        "largest_process": memory.one, "all_processes": memory.all,
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def row_of(fleet: LoopbackFleet, cycle: int, what: str, names: Sequence[str]) -> Row:
    """Compare a cycle's sum with that of the vectors of the devices that should be in it."""
    record = _records(fleet)[cycle]
    wanted = expected(fleet.server, [fleet.folder / name for name in names], cycle, fleet.notes)
    right = bool(wanted.any()) and np.array_equal(wanted, released(fleet.server, cycle))
    right = right and record.accepted == len(names)
    seconds = record.seconds.get("collect", 0.0)
    return Row(cycle, what, record.accepted, record.refused, right, round(seconds, 1), record.decision)


def table(found: dict[str, Any]) -> str:
    """Write what was found for people."""
    lines = [
        f"Devices on `{found['backend']}`; load average {found['load']} on {os.cpu_count()} processors; a device says",
        f"every {found['heartbeat']} s that it lives.\n",
        "| cycle | what happens | in the sum | refused | the sum is right | collected in, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        refused = ", ".join(f"{count} x {reason}" for reason, count in row["refused"].items())
        right = "yes" if row["right"] else "NO"
        lines.append(f"| {row['cycle']} | {row['what']} | {row['in_sum']} | {refused} | {right} | {row['seconds']} |")
    stores = ", ".join(f"{episodes} episodes, {damaged} damaged" for episodes, damaged in found["stores"].values())
    lines += [
        f"\nThe run is {'complete' if found['complete'] else 'NOT complete'}, with {found['versions']} versions.",
        f"Stores: {stores}.",
        f"A device's largest process: {found['largest_process']} MB; all of its processes, when that is most:",
        f"{found['all_processes']} MB (sizes in memory added up, what they share counted more than once).",
    ]
    return "\n".join(lines) + "\n"


def _records(fleet: LoopbackFleet) -> Sequence[CycleRecord]:
    run = fleet.server / "run"
    return read_summary(run).cycles if (run / NAME).exists() else ()


def _ended(fleet: LoopbackFleet, cycle: int) -> bool:
    return len(_records(fleet)) > cycle


def _began(fleet: LoopbackFleet, cycle: int) -> bool:
    path = fleet.server / "run" / "events.jsonl"
    events = read_events(path) if path.exists() else []
    return any(isinstance(e, PhaseStarted) and (e.cycle, e.phase) == (cycle, "collect") for e in events)


if __name__ == "__main__":
    main()
