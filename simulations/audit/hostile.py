"""A server that has every key of its fleet and keeps to no rule, and devices that run their own code with their checks.

A device here has what a deployed one has: its owner's `[trust]`, a record of what it gave, a list of members that only
gets newer, and games that nobody else can compute. Only its folders are simpler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict

from ...client.app import make_app
from ...client.contributions import Contributions
from ...client.device.record import DeviceRecord
from ...client.device.runtime import secret_of
from ...client.runtime import SimulatedRuntime
from ...protocol.config import RunConfig
from ...protocol.errors import FedoelError
from ...protocol.experience import VectorSpec
from ...protocol.fleet.membership import Members, Membership, read_members, sign_members
from ...protocol.fleet.trust import Trust
from ...protocol.messages import PlayRequest, copy_of, request_to_records
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.graph import Graph
from ...protocol.secagg.keys import Advert, Identity
from ...protocol.secagg.messages import ACTIONS, RECORD, Step, first_step, reply_from_records, subject
from ...protocol.secagg.shares import SEALED
from ...protocol.secagg.terms import Terms, from_bitmap, pack, to_bitmap, unpack
from ...protocol.signing import sign_request, sign_terms
from ...protocol.versions import Adapter
from .adversary import Accomplice, Transcript

MEMBERS, SERIAL = "members", "serial"  # files of a device


@dataclass(frozen=True, slots=True)
class HonestRuntime(SimulatedRuntime):
    """The runtime of an honest device, in place of `fedoel.client.device.runtime.DeviceRuntime`."""

    folder: Path
    identity: Identity
    fleet_key: bytes
    owners_trust: Trust
    record: Contributions
    games_key: bytes
    send_words: ClassVar[bool] = False

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Return the device's own key, with the newest list of members that it has taken."""
        file, members = self.folder / MEMBERS, Members(0, frozenset())
        if file.exists():
            members = read_members(self.fleet_key, file.read_text(encoding="ascii"))
        return Membership(self.identity, members.identities, self.fleet_key, self.folder / SERIAL, file, members.number)

    def trust(self, config: RunConfig) -> Trust:
        """Return the owner's settings, whatever the run says."""
        return self.owners_trust

    @property
    def contributions(self) -> Contributions:
        """Return the device's own record."""
        return self.record

    def game_secret(self, client: int, run: str) -> int | None:
        """Return what only this device knows, as a deployed one does."""
        return secret_of(self.games_key, run)


def record_in(folder: Path) -> Contributions:
    """Return the record that a deployed device has, in a folder."""
    return DeviceRecord(folder / "contributions.sqlite")


class HostileServer:
    """The server, and the devices that it reaches.

    Parameters
    ----------
    config
        The run's configuration.
    trust
        What every device's owner allows.
    devices
        Number of honest devices.
    folder
        Folder of the devices' files.
    record
        Makes a device's record in a folder.
    identities
        The devices' keys; by default new ones.
    """

    def __init__(
        self,
        config: RunConfig,
        trust: Trust,
        devices: int,
        folder: Path,
        record: Callable[[Path], Contributions] = record_in,
        identities: Sequence[Identity] = (),
    ) -> None:
        self.config, self.trust = config, trust
        self.key, self.serial, self.lists = Ed25519PrivateKey.generate(), 0, 0
        self.identities = identities or [Identity(Ed25519PrivateKey.generate()) for _ in range(devices)]
        fleet_key = self.key.public_key().public_bytes_raw()
        self.runtimes = [
            HonestRuntime(folder / str(n), identity, fleet_key, trust, record(folder / str(n)), bytes([n]) * 32)
            for n, identity in enumerate(self.identities)
        ]
        self.signed_list = self.sign_list()
        for runtime in self.runtimes:
            runtime.folder.mkdir(parents=True, exist_ok=True)
            (runtime.folder / MEMBERS).write_text(self.signed_list, encoding="ascii")
        self._apps = [make_app(runtime) for runtime in self.runtimes]
        self._contexts: dict[tuple[int, int], Context] = {}
        self._brought: dict[int, RunConfig] = {}
        self.refused: Counter[str] = Counter()

    def sign_list(self, accomplices: Iterable[Identity] = ()) -> str:
        """Sign a newer list of members, with accomplices among them."""
        self.lists += 1
        return sign_members(self.key, self.lists, [identity.public for identity in (*self.identities, *accomplices)])

    def request(
        self, spec: VectorSpec, adapter: Adapter, cycle: int = 1, exchange: int = 1, plan: str = ""
    ) -> PlayRequest:
        """Sign a request with the next serial number."""
        self.serial += 1
        baseline = np.zeros((len(spec.families), spec.horizon), np.float32)
        request = PlayRequest(
            cycle, exchange, spec, baseline, adapter, serial=self.serial, plan=plan, config=self.config.digest
        )
        return sign_request(self.key, request)

    def send(self, device: int, action: str, records: RecordDict, flower_run: int = 1) -> RecordDict:
        """Send a message to a device, whose answers to every run of Flower have a state of their own.

        Raises
        ------
        FedoelError
            If the device refuses; its code is counted under `refused`.
        """
        place = (device, flower_run)
        if place not in self._contexts:
            node = {"partition-id": device, "num-partitions": len(self.identities)}
            settings = self._brought.get(flower_run, self.config).to_flat()
            self._contexts[place] = Context(flower_run, device + 1, node, RecordDict(), settings)  # type: ignore[arg-type]
        message = Message(copy_of(records), dst_node_id=device + 1, message_type=action)
        try:
            return self._apps[device](message, self._contexts[place]).content
        except FedoelError as error:
            self.refused[str(error).removeprefix("code: ")] += 1
            raise

    def bring(self, config: RunConfig, flower_run: int = 1) -> None:
        """Send devices another configuration with a run of Flower, from the next start of a node on."""
        self._brought[flower_run] = config

    def restart(self, device: int, flower_run: int = 1) -> None:
        """Start a device's node anew: it loses its state."""
        self._contexts.pop((device, flower_run), None)

    @property
    def reasons(self) -> str:
        """The codes with which devices have refused, most frequent first."""
        return ", ".join(code for code, _ in self.refused.most_common())


@dataclass
class HostileRound:
    """One round of a hostile server: every step is what an honest server would send, unless the caller says otherwise.

    Parameters
    ----------
    server
        The server.
    terms, plan, request
        Terms, privacy plan and request of the round.
    devices
        Honest devices by position.
    accomplices
        Members of the server's own by position; all other positions are of nobody.
    flower_run
        The run of Flower in which devices are asked.
    """

    server: HostileServer
    terms: Terms
    plan: PrivacyPlan
    request: PlayRequest
    devices: Mapping[int, int]
    accomplices: Mapping[int, Identity | None] = field(default_factory=dict)
    flower_run: int = 1
    confirmed: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = {p: Accomplice.joining(self.terms, p, identity) for p, identity in self.accomplices.items()}
        self.transcript = Transcript(self.terms, made)

    # Steps; each raises `FedoelError` if the device refuses.

    def keys(self, position: int, signature: bytes | None = None) -> None:
        """Ask for keys, with the signature of the terms by the fleet's key or another one."""
        if signature is None:
            signature = sign_terms(self.server.key, self.terms.to_json().encode())
        step = first_step(self.terms, position, signature)
        reply = self._step(position, "keys", step.body, step.extra)
        self.transcript.adverts[position] = Advert.from_bytes(reply)

    def adverts_for(self, position: int) -> dict[int, bytes]:
        """Return the adverts of all others, honest devices' and accomplices'."""
        made = {p: accomplice.advert for p, accomplice in self.transcript.accomplices.items()}
        return {p: a.to_bytes() for p, a in (self.transcript.adverts | made).items() if p != position}

    def shares(self, position: int, adverts: Iterable[bytes] | None = None, signed_list: str | None = None) -> None:
        """Show adverts, and ask for shares."""
        body = b"".join(self.adverts_for(position).values() if adverts is None else adverts)
        text = self.server.signed_list if signed_list is None else signed_list
        reply = self._step(position, "shares", body, text.encode())
        self.transcript.sealed[position] = unpack(reply, SEALED)

    def sealed_for(self, position: int) -> dict[int, bytes]:
        """Return the sealed shares for a device, by their senders."""
        return {dealer: parts[position] for dealer, parts in self.transcript.sealed.items() if position in parts}

    def mask(
        self, position: int, shared: Iterable[int] | None = None, sealed: Mapping[int, bytes] | None = None
    ) -> None:
        """Say who has shared, deliver sealed shares, and ask for the masked vector."""
        senders = {*self.transcript.sealed, *self.transcript.accomplices}
        delivered = self.sealed_for(position) if sealed is None else sealed
        body = to_bitmap(senders if shared is None else shared, self.terms) + pack(delivered.items())
        reply = self._step(position, "masked", body, self.plan.to_json().encode(), request_to_records(self.request))
        self.transcript.note_masked(position, body, reply)

    def confirm(self, position: int, survivors: bytes) -> None:
        """Ask to sign a set of survivors."""
        self.confirmed[position] = survivors, self._step(position, "confirm", survivors)

    def signatures_for(self, position: int, survivors: bytes) -> bytes:
        """Return all signatures of a set of survivors that the server has from a device's neighbours."""
        signed = {p: signature for p, (confirmed, signature) in self.confirmed.items() if confirmed == survivors}
        signed |= {p: made.sign(survivors, self.terms) for p, made in self.transcript.accomplices.items()}
        return pack((p, signed[p]) for p in self.transcript.sealed.get(position, {}) if p in signed)

    def unmask(self, position: int, survivors: bytes, signatures: bytes | None = None) -> None:
        """Ask for shares that open a sum over a set of survivors."""
        signed = self.signatures_for(position, survivors) if signatures is None else signatures
        reply = self._step(position, "unmask", survivors, signed)
        self.transcript.note_opened(position, from_bitmap(survivors, self.terms), reply)

    def each(self, step: Callable[[int], None], positions: Iterable[int] | None = None) -> list[int]:
        """Make a step with devices at positions, by default all honest ones; return those that have not refused."""
        answered = []
        for position in self.devices if positions is None else positions:
            try:
                step(position)
            except FedoelError:
                continue
            answered.append(position)
        return answered

    def up_to_shares(self) -> list[int]:
        """Make the first two phases as an honest server does; return the positions that have shared their secrets."""
        self.each(self.keys)
        return self.each(self.shares, list(self.transcript.adverts))

    def up_to_masked(self) -> list[int]:
        """Make the first three phases as an honest server does; return the positions that are in the sum."""
        return self.each(self.mask, self.up_to_shares())

    def open(self, survivors: Iterable[int]) -> None:
        """Make the last two phases with one set of survivors."""
        chosen = to_bitmap(survivors, self.terms)
        self.each(lambda position: self.confirm(position, chosen), list(self.transcript.masked))
        self.each(lambda position: self.unmask(position, chosen), list(self.confirmed))

    def _step(
        self, position: int, phase: str, body: bytes, extra: bytes = b"", beside: RecordDict | None = None
    ) -> bytes:
        records = beside or RecordDict()
        records[RECORD] = Step(self.terms.digest, body, extra).to_record()
        return reply_from_records(self.server.send(self.devices[position], ACTIONS[phase], records, self.flower_run))


def terms_of(
    request: PlayRequest, plan: PrivacyPlan, cohort: int, graph: Graph, number: int = 1, run: str = "ab"
) -> Terms:
    """Return the terms of a round that an honest server would make for a request and a plan."""
    return Terms(
        run, number, cohort, graph.neighbours, graph.threshold, plan.minimum, plan.cells, plan.bits,
        subject(request, plan),
    )  # fmt: skip


def resigned(server: HostileServer, request: PlayRequest, **changed: object) -> PlayRequest:
    """Return a changed request with the signature that the fleet's key makes for it."""
    return sign_request(server.key, replace(request, **changed))  # type: ignore[arg-type]


def everybody(devices: Sequence[int]) -> dict[int, int]:
    """Return devices by their positions, in order."""
    return dict(enumerate(devices))
