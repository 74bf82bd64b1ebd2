"""Malicious clients: the vectors that they send instead of their experience, and the app that sends them.

A malicious client runs its own code. What it sends need not be clipped, finite, or derived from its own play. It plays
as requested, to know the honest vector, and sends an attack vector instead. In a secure sum it follows the protocol and
adds the attack vector to its masked vector, where the server can neither see nor clip it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType

import numpy as np
from flwr.app import Context, Message, RecordDict

from ..client.app import experience_of, make_app, partition
from ..client.runtime import Runtime
from ..client.secure import answer_step
from ..codecs.tactics.coordinates import FACETS, MOVES, RETURNS
from ..protocol.config import RunConfig
from ..protocol.experience import ExperienceVector, Vector
from ..protocol.messages import PlayRequest, reply_to_records, request_from_records
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg.masks import Cells, cell_type
from ..protocol.secagg.messages import ACTIONS, reply_from_records, reply_records, step_from_records


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a malicious client knows when it makes its vector.

    Parameters
    ----------
    honest
        The vector that an honest client would send in its place, clipped.
    first
        The same for the first exchange in which it took part.
    colluders
        The honest vectors of all colluding clients, itself included, in the same order for each of them.
    rng
        A random generator for this client and exchange.
    """

    honest: ExperienceVector
    first: ExperienceVector
    colluders: Sequence[ExperienceVector]
    rng: np.random.Generator


Attack = Callable[[Knowledge], ExperienceVector]


def no_attack(known: Knowledge) -> ExperienceVector:
    """No attack: send the honest vector."""
    return known.honest


def random(known: Knowledge) -> ExperienceVector:
    """A gradient in a random direction with the largest norm allowed."""
    direction = known.rng.normal(size=known.honest.spec.dimension)
    return _with(known.honest, known.honest.spec.clipping_norm * direction / np.linalg.norm(direction))


def scaled(factor: float) -> Attack:
    """The honest gradient times ``-factor``."""
    return lambda known: _with(known.honest, -factor * known.honest.gradient)


def drop_everything(known: Knowledge) -> ExperienceVector:
    """A targeted attack: a gradient with the largest norm allowed towards the tactic of dropping what is carried."""
    target = np.zeros(known.honest.spec.dimension)
    first = MOVES.index("drop") * FACETS
    target[first + 1 : first + FACETS : len(RETURNS)] = 1.0
    return _with(known.honest, known.honest.spec.clipping_norm * target / np.linalg.norm(target))


def collude(known: Knowledge) -> ExperienceVector:
    """The colluders' negated mean gradient, scaled to the largest norm among them; all send the same."""
    mean = np.mean([vector.gradient for vector in known.colluders], axis=0)
    longest = max(float(np.linalg.norm(vector.gradient)) for vector in known.colluders)
    return _with(known.honest, -longest * mean / max(float(np.linalg.norm(mean)), 1e-9))


def sybil(known: Knowledge) -> ExperienceVector:
    """A Sybil attack: all send the first colluder's vector with its gradient negated, identical to the bit."""
    first = known.colluders[0]
    return replace(first, gradient=-first.gradient)


def replay(known: Knowledge) -> ExperienceVector:
    """A replay attack: the vector of the first exchange, labelled with the current version."""
    return replace(known.first, spec=known.honest.spec)


def filled(value: float) -> Attack:
    """A vector in which every number is `value`."""
    return lambda known: ExperienceVector.unchecked(
        known.honest.spec, np.full(known.honest.spec.size, value, np.float32)
    )


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "none": no_attack,
        "random": random,
        "sign-flip": scaled(1.0),
        "scale-10": scaled(10.0),
        "scale-100": scaled(100.0),
        "constant": drop_everything,
        "collude": collude,
        "sybil": sybil,
        "replay": replay,
        "nan": filled(float("nan")),
        "overflow": filled(3e38),
    }
)


def _with(
    vector: ExperienceVector, gradient: Vector | np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> ExperienceVector:
    return replace(vector, gradient=np.asarray(gradient).astype(np.float32))


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
    _played: dict[tuple[int, tuple[int, int]], ExperienceVector] = field(default_factory=dict)
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

    def answer_secure(self, phase: str, records: RecordDict, context: Context) -> RecordDict:
        """Reply to one phase of a secure sum; the masked vector holds the attack vector."""
        client = partition(context)[0]

        def play(request: PlayRequest, run: str) -> ExperienceVector:
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


def make_attacked_app(runtime: Runtime, gang: Gang) -> Callable[[Message, Context], Message]:
    """Build an app in which the members of the gang are malicious; all other nodes run the devices' app unchanged."""
    honest_app, phases = make_app(runtime), {action: phase for phase, action in ACTIONS.items()}

    def app(message: Message, context: Context) -> Message:
        client, records = partition(context)[0], message.content
        if client not in gang.members:
            return honest_app(message, context)
        if phase := phases.get(message.metadata.message_type):
            reply = gang.answer_secure(phase, records, context)
        else:
            reply = reply_to_records(gang.attack_vector(client, request_from_records(records)))
        return Message(reply, reply_to=message)

    return app


def malicious_of(clients: int, share: float, seed: int) -> tuple[int, ...]:
    """Sample the malicious clients, a fraction `share` of all, rounded."""
    digest = hashlib.sha256(f"malicious {seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return tuple(sorted(rng.choice(clients, size=round(share * clients), replace=False).tolist()))
