"""A ClientApp in which some nodes are malicious; the honest nodes run the devices' app unchanged.

A malicious node plays as requested, to know the honest vector, and sends an attack vector instead. In a secure sum it
follows the protocol and adds the attack vector to its masked vector, where the server can neither see nor clip it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ...client.app import answer, answer_secure, experience_of, partition
from ...client.runtime import Runtime
from ...client.secure import answer_step
from ...protocol.config import RunConfig
from ...protocol.experience import ExperienceVector
from ...protocol.messages import PlayRequest, reply_to_records, request_from_records
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.masks import Cells, cell_type
from ...protocol.secagg.messages import ACTIONS, reply_from_records, reply_records, step_from_records
from .vectors import Attack, Knowledge

CycleExchange = tuple[int, int]


@dataclass
class Gang:
    """The colluding malicious nodes of a run; each plays once per exchange, and all know all honest vectors.

    Parameters
    ----------
    members
        Client numbers of the malicious nodes.
    """

    runtime: Runtime
    config: RunConfig
    attack: Attack
    members: tuple[int, ...]
    _played: dict[tuple[int, CycleExchange], ExperienceVector] = field(default_factory=dict)
    _cells: dict[int, Cells] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def attack_vector(self, client: int, request: PlayRequest) -> ExperienceVector:
        """Return the vector that a member sends instead of its experience."""
        with self._lock:  # nodes run in parallel, and each needs the vectors of all members
            colluders = [self._honest(member, request) for member in self.members]
        honest = colluders[self.members.index(client)]
        first = min(exchange for member, exchange in self._played if member == client)
        seed = [self.config.seed, client, request.cycle, request.exchange]
        return self.attack(Knowledge(honest, self._played[client, first], colluders, np.random.default_rng(seed)))

    def answer(self, records: RecordDict, context: Context) -> RecordDict:
        """Reply to a request in the clear."""
        return reply_to_records(self.attack_vector(partition(context)[0], request_from_records(records)))

    def answer_secure(self, phase: str, records: RecordDict, context: Context) -> RecordDict:
        """Reply to one phase of a secure sum; the masked vector holds the attack vector."""
        client, _ = partition(context)

        def play(request: PlayRequest) -> ExperienceVector:
            plan = PrivacyPlan.from_json(step_from_records(records).extra.decode())
            self._cells[client] = cells_of(self.attack_vector(client, request), plan, len(self.members))
            return ExperienceVector.from_parts(request.spec, {})

        member = self.runtime.membership(self.config, client)
        reply = answer_step(phase, records, context, member, play)
        if phase != "masked":
            return reply
        cells = self._cells[client]
        masked = np.frombuffer(reply_from_records(reply), dtype=cell_type(8 * cells.itemsize)).copy()
        masked += cells
        return reply_records(masked.tobytes())

    def _honest(self, client: int, request: PlayRequest) -> ExperienceVector:
        key = client, (request.cycle, request.exchange)
        if key not in self._played:
            played = experience_of(self.config, request, client, self.config.clients, self.runtime)
            self._played[key] = played.vector.clipped()
        return self._played[key]


def cells_of(vector: ExperienceVector, plan: PrivacyPlan, colluders: int = 1) -> Cells:
    """Encode a vector as cells without clipping its norm; NaN becomes the largest value.

    Values are limited so that the sum over the colluders does not wrap around, which would make it small again.
    """
    values = vector.parts()
    scaled = np.concatenate([values[p.name] * (p.weight / p.norm) for p in plan.parts]) * plan.steps
    largest = float(2 ** (plan.bits - 1) // (2 * colluders))
    whole = np.rint(np.clip(np.nan_to_num(scaled, nan=largest), -largest, largest)).astype(np.int64)
    cells: Cells = whole.astype(cell_type(plan.bits))
    return cells


def make_attacked_app(runtime: Runtime, gang: Gang) -> ClientApp:
    """Build an app in which the members of the gang are malicious and all other nodes are honest."""
    app = ClientApp()
    members = frozenset(gang.members)

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        malicious = partition(context)[0] in members
        records = gang.answer(message.content, context) if malicious else answer(message.content, context, runtime)
        return Message(records, reply_to=message)

    for phase, action in ACTIONS.items():
        category, _, name = action.partition(".")
        (app.train if category == "train" else app.query)(name)(_secure_verb(phase, runtime, gang))
    return app


def malicious_of(clients: int, share: float, seed: int) -> tuple[int, ...]:
    """Sample the malicious clients, a fraction `share` of all, rounded."""
    digest = hashlib.sha256(f"malicious {seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return tuple(sorted(rng.choice(clients, size=round(share * clients), replace=False).tolist()))


def _secure_verb(phase: str, runtime: Runtime, gang: Gang) -> Callable[[Message, Context], Message]:
    members = frozenset(gang.members)

    def verb(message: Message, context: Context) -> Message:
        if partition(context)[0] in members:
            return Message(gang.answer_secure(phase, message.content, context), reply_to=message)
        return Message(answer_secure(phase, message.content, context, runtime), reply_to=message)

    return verb
