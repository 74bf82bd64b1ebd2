"""Devices that have joined a fleet, and a server that has all of its keys and keeps to no rule."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from numpy.typing import NDArray

from fedoel.client.app import make_app
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.join import join
from fedoel.client.device.settings import DeviceSettings, settings_file
from fedoel.client.runtime import SimulatedRuntime
from fedoel.codecs.tactics import coordinates as tactics
from fedoel.protocol.config import RunConfig
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet.log import REQUEST
from fedoel.protocol.fleet.membership import load_members
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.messages import PlayRequest, copy_of, request_to_records, vector_from_reply
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.secagg.graph import Graph, complete_graph
from fedoel.protocol.secagg.messages import ACTIONS, RECORD, Step, first_step, reply_from_records, subject
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.terms import Terms
from fedoel.protocol.signing import entry_of_request, sign_request, sign_terms
from fedoel.server.fleet import newest_log, next_serial, owner_key
from fedoel.server.log import FleetLog
from fedoel.server.operate.folder import ServerFolder, Settings, read_run
from fedoel.server.operate.setup import enroll, init
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid

EVERYBODY, WITHOUT_ZERO = range(5), range(1, 5)
PHASES = ("keys", "shares", "masked", "confirm", "unmask")
RUN = """\
cycles = 2
[games]
families = "frozen-lake size=3 turns=4"
per-client = 3
[policy]
backend = "tactics"
[strategy]
name = "secure-mean"
min-available-nodes = 5
[server]
prompts = "pack.jsonl"
"""
SPEC = VectorSpec("tactics", tactics.DIMENSION, tactics.VOCABULARY, "v1", ("frozen-lake",), 10, 50.0, 200.0)


def in_the_log(keys: Path, request: PlayRequest) -> PlayRequest:
    """Return a signed request as the fleet's server sends it: in the log, and with the log."""
    FleetLog(keys).add(owner_key(keys), REQUEST, **entry_of_request(request))
    return replace(request, log=newest_log(keys))


@dataclass
class Devices:
    """A fleet's folders, and the contexts of its nodes, which a node loses when it is started again."""

    folder: Path
    count: int = 5
    contexts: dict[int, Context] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = ServerFolder(self.folder / "server")
        self.restart(range(self.count))

    @classmethod
    def make(cls, folder: Path, count: int = 5, run: str = RUN) -> Devices:
        """Make the folders of a fleet, as the commands do."""
        server = ServerFolder(folder / "server")
        with redirect_stdout(io.StringIO()):
            init(server, Settings(("127.0.0.1",), 9, "127.0.0.1:9"))
            server.run_file.write_text(run, encoding="utf-8")
            devices = cls(folder, count)
            for number in range(count):
                join(devices.device(number), f"d{number}")
                devices.enroll(number)
            for number in range(count):  # with the list of all members
                devices.enroll(number)
                join(devices.device(number), bundle=devices.bundle(number))
        return devices

    def enroll(self, number: int) -> None:
        """Write a device's bundle anew."""
        enroll(self.server, self.device(number).path / f"d{number}.pub", out=self.bundle(number))

    @property
    def config(self) -> RunConfig:
        return replace(read_run(self.server), clients=self.count)

    def device(self, number: int) -> DeviceFolder:
        return DeviceFolder(self.folder / f"d{number}")

    def bundle(self, number: int) -> Path:
        return self.folder / f"d{number}.fleet"

    def restart(self, numbers: Sequence[int], **changed: Any) -> None:
        """Start nodes anew, as a run of Flower does, with changed settings of the run."""
        flat = {**self.config.to_flat(), **changed}
        self.running = RunConfig.from_flat(flat)
        for number in numbers:
            node = {"home": str(self.device(number).path), "partition-id": number, "num-partitions": number + 1}
            self.contexts[number] = Context(1, number + 1, node, RecordDict(), flat)  # type: ignore[arg-type]

    def request(self, **changed: Any) -> PlayRequest:
        """Return a request that the fleet's owner has signed, with the next serial number."""
        weights = {"weights": np.zeros(tactics.DIMENSION, np.float32)}
        plain = PlayRequest(
            1, 1, SPEC, np.zeros((1, 10), np.float32), weights, serial=next_serial(self.server.fleet),
            config=self.running.digest,
        )  # fmt: skip
        return in_the_log(self.server.fleet, sign_request(owner_key(self.server.fleet), replace(plain, **changed)))

    def signature(self, terms: Terms) -> bytes:
        """Return the signature of a round's terms that the fleet's owner makes."""
        return sign_terms(owner_key(self.server.fleet), terms.to_json().encode())

    def send(self, number: int, action: str, records: RecordDict) -> RecordDict:
        message = Message(copy_of(records), dst_node_id=number + 1, message_type=action)
        return make_app(SimulatedRuntime())(message, self.contexts[number]).content

    def gradient(self, number: int, request: PlayRequest, noisy: bool = False) -> NDArray[np.float32]:
        """Ask a device for its vector by itself."""
        reply = self.send(number, "train.experience", request_to_records(request))
        return vector_from_reply(reply, request.spec, noisy).gradient


class DevicesGrid(InProcessGrid):
    """Nodes of devices that have joined, instead of simulated ones."""

    def __init__(self, devices: Devices) -> None:
        super().__init__(make_app(SimulatedRuntime()), devices.count, devices.config.to_flat())
        for number in range(devices.count):
            self._contexts[FIRST_NODE_ID + number].node_config["home"] = str(devices.device(number).path)


@dataclass
class SecureRound:
    """One round over some devices; a device that refuses has dropped out, and why is in `refused`."""

    devices: Devices
    request: PlayRequest
    numbers: Sequence[int]
    number: int
    run: str = "ab"
    noise: float = 0.0
    minimum: int = 0
    refused: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cohort = len(self.numbers)
        spec = self.request.spec
        part = Part("gradient", spec.dimension, spec.clipping_norm, 1.0)
        self.plan = PrivacyPlan.make((part,), cohort, self.minimum or cohort - 1, self.noise)
        graph = complete_graph(cohort, 1 / 3, 0.0) or Graph(cohort - 1, cohort - 1)
        self.terms = Terms(
            self.run, self.number, cohort, graph.neighbours, graph.threshold, self.plan.minimum, self.plan.cells,
            self.plan.bits, subject(self.request, self.plan),
        )  # fmt: skip
        self.server = ServerRound(self.terms, load_members(self.devices.server.fleet)[0].identities)

    def step(self, position: int, phase: str) -> bytes:
        """Ask one device, and return its answer."""
        server, digest = self.server, self.terms.digest
        steps: Mapping[str, Callable[[], Step]] = {
            "keys": lambda: first_step(self.terms, position, self.devices.signature(self.terms)),
            "shares": lambda: Step(digest, server.adverts_for(position)),
            "masked": lambda: Step(digest, server.shares_for(position), self.plan.to_json().encode()),
            "confirm": lambda: Step(digest, server.survivors),
            "unmask": lambda: Step(digest, server.survivors, server.signatures_for(position)),
        }
        records = request_to_records(self.request) if phase == "masked" else RecordDict()
        records[RECORD] = steps[phase]().to_record()
        return reply_from_records(self.devices.send(self.numbers[position], ACTIONS[phase], records))

    def run_to(self, last: str = "unmask", first: str = "keys") -> SecureRound:
        """Go through the phases up to one."""
        takes = {
            "keys": self.server.take_keys, "shares": self.server.take_shares, "masked": self.server.take_masked,
            "confirm": self.server.take_confirmation, "unmask": self.server.take_opened,
        }  # fmt: skip
        for phase in PHASES[PHASES.index(first) : PHASES.index(last) + 1]:
            for position in range(len(self.numbers)):
                if self.numbers[position] in self.refused:
                    continue
                try:
                    takes[phase](position, self.step(position, phase))
                except Exception as error:  # of the device: its text is the code
                    self.refused[self.numbers[position]] = f"{phase}: {str(error).removeprefix('code: ')}"
        return self

    def sum(self) -> NDArray[np.float64]:
        return np.asarray(self.plan.decode(self.server.total())["gradient"])


def set_trust(devices: Devices, **settings: Any) -> None:
    """Write what the owners of all devices allow."""
    for number in range(devices.count):
        text = settings_file(DeviceSettings(trust=replace(Trust(), **settings)))
        devices.device(number).settings.write_text(text)
