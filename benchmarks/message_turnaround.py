"""How long a device takes for one message in a deployment, where each message has a process of its own.

    python benchmarks/message_turnaround.py --messages 6

A server and one device run as processes on this machine, with TLS and node authentication, without a language model.
Turn-around is from the moment when the device's SuperNode sees a message to that when its reply is sent: starting a
process, importing, reading keys and settings, playing, encoding. A device that plays nothing ("not now") shows what is
left of it without play. Flower looks for new messages every 3 s, which comes on top and is not counted here. Processor
time is that of the processes which answer (Linux only); unlike the turn-around, it does not depend on what else runs.
Memory is that of all processes of the device, what they share counted once: the median of moments five a second.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from fedoel.protocol.host.processes import descendants
from fedoel.simulations.loopback import LoopbackFleet, arguments_of

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
PROPORTIONAL = re.compile(r"^Pss: +(\d+) kB", re.MULTILINE)
SECONDS = 600.0


def main() -> None:
    """Measure both kinds of message, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=6)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| message | replies | turn-around, s, median (lowest-highest) | processor time, s | memory, MB |")
    print("|---|---|---|---|---|")
    for what, settings in (("six games played", ""), ("not now", "[play]\ngames-a-day = 1\n")):
        with tempfile.TemporaryDirectory(prefix="fedoel-turnaround-") as folder:
            seconds, processor, memory = measure(Path(folder), settings, arguments.messages)
        spread = f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"| {what} | {len(seconds)} | {spread} | {processor:.2f} | {memory:.0f} |", flush=True)


def measure(folder: Path, settings: str, messages: int) -> tuple[list[float], float, float]:
    """Run a fleet of one device.

    Returns
    -------
    tuple[list[float], float, float]
        The turn-around of each message and the mean processor time, in seconds, and the median memory in megabytes.
    """
    fleet, spent, memory = LoopbackFleet(folder, ["device"]), [0.0], list[float]()
    fleet.make(RUN.format(messages=messages), settings)

    def over() -> bool:
        spent.append(children_seconds(fleet.running["device"].pid))
        memory.append(megabytes(fleet.running["device"].pid))
        return fleet.over("server")

    try:
        fleet.start("server")
        fleet.wait(lambda: "may connect" in fleet.said("server"), SECONDS)
        fleet.start("device")
        fleet.wait(over, SECONDS, every=0.2)
        time.sleep(1)  # until the last process is over
        over()
        fleet.stop("device")
    finally:
        fleet.end()
    return turnarounds(fleet.log("device")), max(spent) / messages, median(memory)


def children_seconds(device: int) -> float:
    """Processor time of the processes for messages that are over, which the device's fork server has waited for."""
    found = 0.0
    for pid in descendants(device):
        with suppress(OSError):
            if "multiprocessing.forkserver" in arguments_of(pid):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                found = max(found, (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK"))
    return found


def megabytes(device: int) -> float:
    """Memory of a device's processes: their proportional set sizes."""
    found = 0.0
    for pid in (device, *descendants(device)):
        with suppress(OSError):
            sizes = PROPORTIONAL.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
            found += int(sizes[1]) / 1024 if sizes else 0.0
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
