"""How long a device takes for one message in a deployment, where each message is a new process.

    python benchmarks/message_turnaround.py --messages 6

A server and one device run as processes on this machine, with TLS and node authentication, without a language model.
Turn-around is from the moment when the device's SuperNode sees a message to that when its reply is sent: starting a
process, importing, reading keys and settings, playing, encoding. A device that plays nothing ("not now") shows what is
left of it without play. Flower looks for new messages every 3 s, which comes on top and is not counted here. Processor
time is that of the processes which answer (Linux only); unlike the turn-around, it does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from fedoel.simulations.loopback import LoopbackFleet

RUN = """\
cycles = {messages}
[games]
families = "frozen-lake size=3 turns=6"
per-client = 6
rehearsal = 4
gate = 4
held-out = 4
[policy]
backend = "tactics"
[strategy]
name = "mean"
min-available-nodes = 1
[server]
public = "games"
"""
LINE = re.compile(r"^(\S+ \S+) .*?(Receiving: train|Sent successfully)", re.MULTILINE)
SECONDS = 600.0


def main() -> None:
    """Measure both kinds of message, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=6)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| message | replies | turn-around, s, median (lowest-highest) | processor time, s |")
    print("|---|---|---|---|")
    for what, settings in (("six games played", ""), ("not now", "[play]\ngames-a-day = 1\n")):
        with tempfile.TemporaryDirectory(prefix="fedoel-turnaround-") as folder:
            seconds, processor = measure(Path(folder), settings, arguments.messages)
        spread = f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"| {what} | {len(seconds)} | {spread} | {processor:.2f} |", flush=True)


def measure(folder: Path, settings: str, messages: int) -> tuple[list[float], float]:
    """Run a fleet of one device; return the turn-around of each message, and the mean processor time, in seconds."""
    fleet, spent = LoopbackFleet(folder, ["device"]), [0.0]
    fleet.make(RUN.format(messages=messages), settings)

    def over() -> bool:
        spent.append(children_seconds(fleet.running["device"].pid))
        return fleet.over("server")

    try:
        fleet.start("server")
        fleet.wait(lambda: "may connect" in fleet.said("server"), SECONDS)
        fleet.start("device")
        fleet.wait(over, SECONDS, every=0.2)
        fleet.stop("device")
    finally:
        fleet.end()
    # A process is counted when the next one starts: the last one never is.
    return turnarounds(fleet.log("device")), max(spent) / (messages - 1)


def children_seconds(device: int) -> float:
    """Processor time of the processes that a device's Flower has started for messages and that are over."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, rest = stat.read_text().rsplit(")", 1)
            parents[int(stat.parent.name)] = (int(rest.split()[1]), name, rest.split())
    below, found = {device}, 0.0
    for pid, (parent, name, fields) in sorted(parents.items()):
        if parent in below:
            below.add(pid)
            if "flower-superexe" in name:  # Linux keeps 15 characters
                found = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return found


def turnarounds(log: str) -> list[float]:
    """Pair what was received with what was sent."""
    seconds, received = [], None
    for moment, what in LINE.findall(log):
        at = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f")
        if what.startswith("Receiving"):
            received = at
        elif received is not None:
            seconds.append((at - received).total_seconds())
            received = None
    return seconds


if __name__ == "__main__":
    main()
