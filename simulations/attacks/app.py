"""A ClientApp some of whose nodes lie; the others are the app that devices run, unchanged.

A malicious node plays as it is asked, so that it knows what an honest one would say, and sends something else. In a
secure sum it takes part as agreed and adds to its masked vector what it likes: nobody sees it, and nobody clips it.
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
from .vectors import Attack, Seen

Turn = tuple[int, int]


@dataclass
class Gang:
    """The malicious nodes of a run, and what each would have sent, played once.

    Parameters
    ----------
    members
        Their client numbers.
    """

    runtime: Runtime
    config: RunConfig
    attack: Attack
    members: tuple[int, ...]
    _played: dict[tuple[int, Turn], ExperienceVector] = field(default_factory=dict)
    _cells: dict[int, Cells] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def lie(self, client: int, request: PlayRequest) -> ExperienceVector:
        """Return what a member sends instead of its experience."""
        with self._lock:  # nodes run side by side, and each wants what all have played
            fellows = [self._experience(member, request) for member in self.members]
        own = fellows[self.members.index(client)]
        first = min(turn for member, turn in self._played if member == client)
        seed = [self.config.seed, client, request.cycle, request.exchange]
        return self.attack(Seen(own, self._played[client, first], fellows, np.random.default_rng(seed)))

    def answer(self, records: RecordDict, context: Context) -> RecordDict:
        """Answer a plain request."""
        return reply_to_records(self.lie(partition(context)[0], request_from_records(records)))

    def answer_secure(self, phase: str, records: RecordDict, context: Context) -> RecordDict:
        """Answer one phase of a secure sum, with a lie under the mask."""
        client, _ = partition(context)

        def play(request: PlayRequest) -> ExperienceVector:
            plan = PrivacyPlan.from_json(step_from_records(records).extra.decode())
            self._cells[client] = cells_of(self.lie(client, request), plan, len(self.members))
            return ExperienceVector.from_parts(request.spec, {})

        member = self.runtime.membership(self.config, client)
        reply = answer_step(phase, records, context, member, play)
        if phase != "masked":
            return reply
        lie = self._cells[client]
        masked = np.frombuffer(reply_from_records(reply), dtype=cell_type(8 * lie.itemsize)).copy()
        masked += lie
        return reply_records(masked.tobytes())

    def _experience(self, client: int, request: PlayRequest) -> ExperienceVector:
        key = client, (request.cycle, request.exchange)
        if key not in self._played:
            played = experience_of(self.config, request, client, self.config.clients, self.runtime)
            self._played[key] = played.vector.clipped()
        return self._played[key]


def cells_of(vector: ExperienceVector, plan: PrivacyPlan, liars: int = 1) -> Cells:
    """Write a vector as cells without clipping it; what has no number becomes the largest that is of use.

    So many liars take care that their sum does not wrap around, which would make it small again.
    """
    values = vector.parts()
    scaled = np.concatenate([values[p.name] * (p.weight / p.norm) for p in plan.parts]) * plan.steps
    largest = float(2 ** (plan.bits - 1) // (2 * liars))
    whole = np.rint(np.clip(np.nan_to_num(scaled, nan=largest), -largest, largest)).astype(np.int64)
    cells: Cells = whole.astype(cell_type(plan.bits))
    return cells


def make_attacked_app(runtime: Runtime, gang: Gang) -> ClientApp:
    """Build an app whose nodes are honest, but for the members of a gang."""
    app = ClientApp()
    members = frozenset(gang.members)

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        lies = partition(context)[0] in members
        records = gang.answer(message.content, context) if lies else answer(message.content, context, runtime)
        return Message(records, reply_to=message)

    for phase, action in ACTIONS.items():
        category, _, name = action.partition(".")
        (app.train if category == "train" else app.query)(name)(_secure_verb(phase, runtime, gang))
    return app


def malicious_of(clients: int, share: float, seed: int) -> tuple[int, ...]:
    """Draw which clients are malicious, a share of all, rounded."""
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
