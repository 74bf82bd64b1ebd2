"""A fleet for a long time, compressed: does anything grow that should not?

    python benchmarks/soak.py --out benchmarks/results/soak

A deployed server's run and the folders of eight deployed devices, with a secure sum, trials by devices and the fleet's
transparency log, for hundreds of cycles. What is missing is the network: messages go from function to function, in one
process. There is no language model. `fleet_drill.py` has processes and a network.

Devices are not always there. Some are killed while they answer, in a process of their own, and then start anew. In some
cycles a device lies in one phase: its answers are noise. After every tenth cycle the device that has lied last is
revoked and wiped, and another one joins in its place.

After every tenth cycle it is noted how large the process is, and what server and devices have on the disk.
The benchmark fails if something grows that has to be flat, or grows faster with time: see `benchmarks/growth.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict

from fedoel.client import store
from fedoel.client.app import make_app
from fedoel.client.device.folder import DeviceFolder, joined
from fedoel.client.device.join import join
from fedoel.client.device.settings import read_settings
from fedoel.client.device.start import write_node_config
from fedoel.client.runtime import SimulatedRuntime
from fedoel.games.make_prompts import make_pack
from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.cache import cache_folder, default_cache
from fedoel.protocol.host.files import make_private_folder
from fedoel.protocol.messages import release_of_reply, with_release
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.prompt_pack import write_pack
from fedoel.protocol.records.events import CycleFinished, Event
from fedoel.protocol.secagg.messages import ACTIONS, reply_from_records, reply_records
from fedoel.server.app import run
from fedoel.server.events import LOG as EVENTS
from fedoel.server.journal import NAME as JOURNAL
from fedoel.server.log import NAME as LOG
from fedoel.server.operate.folder import ServerFolder, Settings, run_of
from fedoel.server.operate.roll import read_roll
from fedoel.server.operate.setup import enroll, init, revoke
from fedoel.server.run_folder import own_folder
from fedoel.server.safeguards import LEDGER
from fedoel.server.summary import read_summary
from fedoel.simulations.grid import CLIENT_APP_RAISED, FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.simulations.loopback import LoopbackFleet

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.growth import Bound, Growth, bytes_of, growth, process_size, table

DEVICES, EVERY = 8, 10  # cycles between two samples
# Chance of a device to be away, of an answer to be killed, and of a cycle to have a lie.
AWAY, CRASHES, LIES = 0.05, 0.01, 0.2
FEWEST = 7  # devices that are there at least
LATEST = 0.03  # seconds after which a process is killed at the latest
MEGABYTES, USES = 0.02, 50  # sizes of a device's store, so that it is full soon
FAMILIES = "frozen-lake size=3 turns=6"
RUN = f"""\
cycles = {{cycles}}
[games]
families = "{FAMILIES}"
per-client = 3
[policy]
backend = "tactics"
threads = 1
[context]
max-kl = 0.02
[trial]
share = 1.0
[strategy]
name = "secure-mean"
min-available-nodes = {FEWEST}
[privacy]
max-dropout = 0.25
[server]
prompts = "prompts.jsonl"
prompts-per-cycle = 16
"""
BOUNDS = (
    Bound("memory", "the process: memory, MB", 0.01, scale=1000),
    Bound("files", "the process: open files", 0.0),
    Bound("threads", "the process: threads", 0.0),
    Bound("seconds", "processor seconds a cycle, of server and devices", 0.05),
    Bound("store", "a device's store, kB", 0.01, scale=1000),
    Bound("record", "a device's record of what it gave, kB", 0.1, kept=True, scale=1000),
    Bound("device", "everything else of a device, kB", 0.01, scale=1000),
    Bound("checkpoints", "run: outcomes of stages, kB", 0.1, kept=True, scale=1000),
    Bound("versions", "run: versions, kB", 0.5, kept=True, scale=1000),
    Bound("journals", "run: events, journal and ledger, kB", 0.1, kept=True, scale=1000),
    Bound("log", "transparency log, kB", 0.1, kept=True, scale=1000),
)


class Fleet(InProcessGrid):
    """The devices as the server sees them, and what happens to them between two cycles."""

    def __init__(self, fleet: LoopbackFleet, config: RunConfig, seed: int) -> None:
        super().__init__(make_app(SimulatedRuntime()), 0, config.to_flat(), wave=1)
        self._fleet, self._flat, self._rng = fleet, config.to_flat(), np.random.default_rng(seed)
        self.here = list(fleet.names)  # names of the fleet's devices
        self._liar, self._phase = "", ""
        self.happened, self.refusals = Counter[str](), Counter[str]()
        self.next_cycle()

    def next_cycle(self) -> None:
        """Let devices come and leave, and choose who lies."""
        away = [name for name in self.here if self._rng.random() < AWAY][: len(self.here) - FEWEST]
        known = self._contexts
        self._contexts = {}
        for name in self.here:
            context = self._context(name)
            if name not in away:  # a node that was away begins anew
                self._contexts[context.node_id] = known.get(context.node_id, context)
        self.happened["a device was away"] += len(away)
        if self._rng.random() < LIES:
            there = [name for name in self.here if name not in away]
            self._liar = there[self._rng.integers(len(there))]
            self._phase = [*ACTIONS.values()][self._rng.integers(len(ACTIONS))]
            self.happened["a device lied"] += 1
        else:
            self._phase = ""

    def replace_liar(self) -> None:
        """Revoke and wipe the device that has lied last, or the one that has been there for longest."""
        old = self._liar or self.here[0]
        number = len(read_roll(ServerFolder(self._fleet.server).roll).devices)
        new = f"device-{number}"
        with redirect_stdout(io.StringIO()):
            revoke(ServerFolder(self._fleet.server), old)
        shutil.rmtree(self._fleet.folder / old)
        add_device(self._fleet, new)
        self.here = [name for name in self.here if name != old] + [new]
        self._liar = ""
        self.happened["a device was replaced"] += 1

    def folder(self, name: str) -> DeviceFolder:
        return DeviceFolder(self._fleet.folder / name)

    def _context(self, name: str) -> Context:
        """Return the context of a node that has just started."""
        folder = self.folder(name)
        node = tomllib.loads(folder.node_config.read_text(encoding="utf-8"))
        number = int(node["partition-id"])
        return Context(1, FIRST_NODE_ID + number, node, RecordDict(), self._flat)

    def _answer(self, message: Message, context: Context) -> Message:
        """Answer; or be killed meanwhile, in a process of its own; or lie."""
        if self._rng.random() < CRASHES:
            self._be_killed(message, context)
            self.happened["a device was killed"] += 1
            context.state = RecordDict()  # its node starts anew
            return Message(Error(CLIENT_APP_RAISED, "killed"), reply_to=message)
        reply = super()._answer(message, context)
        if reply.has_error():
            self.refusals[str(reply.error.reason)] += 1
        elif message.metadata.message_type == self._phase and self._name_of(context) == self._liar:
            release_of_reply(reply.content)  # which stands beside a reply
            noise = self._rng.bytes(len(reply_from_records(reply.content)))
            reply = Message(with_release(reply_records(noise)), reply_to=message)
        return reply

    def _be_killed(self, message: Message, context: Context) -> None:
        """Begin to answer in a process that is killed after some time, and before it has sent its answer."""
        seconds = self._rng.uniform(0.001, LATEST)
        if child := os.fork():
            os.waitpid(child, 0)
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        super()._answer(message, context)
        os.kill(os.getpid(), signal.SIGKILL)

    def _name_of(self, context: Context) -> str:
        return Path(str(context.node_config["home"])).name


class Soak:
    """Takes a sample after every tenth cycle."""

    def __init__(self, grid: Fleet, server: ServerFolder, took: Callable[[list[dict[str, float]]], None]) -> None:
        self.grid, self.server, self.samples, self._took = grid, server, list[dict[str, float]](), took
        self._seconds = time.process_time()

    def listen(self, event: Event) -> None:
        """Note what a cycle has left, and let things happen before the next."""
        if not isinstance(event, CycleFinished):
            return
        if event.cycle and event.cycle % EVERY == 0:
            self.samples.append(self._sample(event.cycle))
            self._took(self.samples)
            self.grid.replace_liar()
        self.grid.next_cycle()

    def _sample(self, cycle: int) -> dict[str, float]:
        before, self._seconds = self._seconds, time.process_time()
        run, devices = self.server.run, [self.grid.folder(name) for name in self.grid.here]
        logs = [run / name for name in (EVENTS, JOURNAL, LEDGER)]
        rest = [bytes_of(each.path) - bytes_of(each.store, each.record) for each in devices]
        return {
            "cycle": cycle, **process_size(), "seconds": (self._seconds - before) / EVERY,
            "store": max(bytes_of(each.store) for each in devices),
            "record": max(bytes_of(each.record) for each in devices), "device": max(rest),
            "checkpoints": bytes_of(run / "checkpoints"), "versions": bytes_of(run / "versions"),
            "journals": bytes_of(*logs), "log": bytes_of(self.server.fleet / LOG),
        }  # fmt: skip


def add_device(fleet: LoopbackFleet, name: str) -> None:
    """Let a device join, and give it a small store."""
    folder, server = DeviceFolder(fleet.folder / name), ServerFolder(fleet.server)
    bundle = fleet.folder / f"{name}.fleet"
    with redirect_stdout(io.StringIO()):
        join(folder, name)
        enroll(server, folder.path / f"{name}.pub", out=bundle)
        join(folder, bundle=bundle)
    text = folder.settings.read_text(encoding="utf-8")
    folder.settings.write_text(re.sub(r"megabytes = [\d.]+", f"megabytes = {MEGABYTES}", text), encoding="utf-8")
    make_private_folder(folder.flower)
    write_node_config(folder, joined(folder), read_settings(folder.settings))


def soak(folder: Path, cycles: int, seed: int, took: Callable[[list[dict[str, float]]], None]) -> dict[str, Any]:
    """Run a fleet for so many cycles, and return the samples and what happened.

    Parameters
    ----------
    took
        Is given the samples so far after each new one.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    fleet = LoopbackFleet(folder.absolute(), [f"device-{number}" for number in range(DEVICES)])
    server = ServerFolder(fleet.server)
    with redirect_stdout(io.StringIO()):
        init(server, Settings(("127.0.0.1",), fleet.port, f"127.0.0.1:{fleet.port}"))
    server.run_file.write_text(RUN.format(cycles=cycles), encoding="utf-8")
    write_pack(server.prompts, make_pack(specs_from_text(FAMILIES), 64, 0, default_cache()))
    for name in fleet.names:
        add_device(fleet, name)
    config, kept = run_of(server, read_roll(server.roll)), store.KEPT_USES
    with own_folder(config), server_identity():
        grid = Fleet(fleet, config, seed)
        watch = Soak(grid, server, took)
        store.KEPT_USES = USES
        try:
            run(grid, config, cache_folder(config), watch.listen, engine="soak")
        finally:
            store.KEPT_USES = kept
    decisions = Counter(record.decision for record in read_summary(server.run).cycles[1:])
    happened = {"happened": grid.happened, "refusals": grid.refusals, "decisions": decisions}
    return {"cycles": cycles, "seed": seed, "devices": DEVICES, "samples": watch.samples, **happened}


def growths(samples: list[dict[str, float]]) -> list[Growth]:
    """Return how each quantity grows."""
    return [growth(bound, samples) for bound in BOUNDS]


def main() -> None:
    """Run a fleet, write its samples and the table, and fail if something grows that must not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of what happens to devices")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    def write(found: dict[str, Any]) -> None:
        (out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="fedoel-soak-") as folder:
        found = soak(Path(folder), arguments.cycles, arguments.seed, lambda samples: write({"samples": samples}))
    write(found)
    rows = growths(found["samples"])
    (out / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    if grows := [row.bound.what for row in rows if not row.allowed]:
        raise SystemExit(f"this grows: {'; '.join(grows)}")


if __name__ == "__main__":
    main()
