"""The phases of a round as Flower records, one request and one reply each; and a device's `Round` between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from ..errors import SecureSumError
from ..messages import PlayRequest
from ..privacy.plan import PrivacyPlan
from ..signing import digest_of
from ..trials import TrialTerms, is_trial
from .device import PHASES, Round
from .terms import Terms

# Flower message types by phase: a category, then the handler's name.
ACTIONS = {phase: f"{'train' if phase == 'masked' else 'query'}.{phase}" for phase in PHASES}
RECORD = "secure"
TRIAL = "trial-"  # beginning of the names of trials among exchanges
FIELDS = {"secrets": "secrets", "asked": "request_digests", "replies": "replies"}  # of a `Round`: key prefix to field


@dataclass(frozen=True, slots=True)
class Step:
    """The request of one phase to one device.

    Parameters
    ----------
    round
        Digest of the round's terms, 32 bytes.
    body
        The phase's content: terms, adverts, sealed shares, or the bitmap of survivors (``confirm`` and ``unmask``).
    extra
        ``keys``: the device's position; ``shares``: the signed list of members; ``masked``: the privacy plan;
        ``unmask``: the neighbours' signatures.
    """

    round: bytes
    body: bytes
    extra: bytes = b""

    def to_record(self) -> ConfigRecord:
        """Return the record that `step_from_records` reads."""
        return ConfigRecord({"round": self.round, "body": self.body, "extra": self.extra})


def step_from_records(records: RecordDict) -> Step:
    """Read the step of a message, which may contain other records.

    Raises
    ------
    SecureSumError
        If there is none, or it is malformed.
    """
    record = records.get(RECORD)
    if not isinstance(record, ConfigRecord) or set(record) != {"round", "body", "extra"}:
        raise SecureSumError("a message holds no step of a secure sum")
    values = [record[name] for name in ("round", "body", "extra")]
    if not all(isinstance(value, bytes) for value in values):
        raise SecureSumError("a step of a secure sum must be bytes")
    return Step(*values)  # type: ignore[arg-type]


def without_step(records: RecordDict) -> RecordDict:
    """Return the other records of a message: the request to play."""
    return RecordDict({name: record for name, record in records.items() if name != RECORD})


def reply_records(reply: bytes) -> RecordDict:
    """Return the records of a reply; `reply_from_records` reads them."""
    return RecordDict({RECORD: ConfigRecord({"reply": reply})})


def reply_from_records(records: RecordDict) -> bytes:
    """Read a reply.

    Raises
    ------
    SecureSumError
        If it is missing, or the records contain anything else.
    """
    if set(records) == {RECORD} and isinstance(record := records[RECORD], ConfigRecord) and set(record) == {"reply"}:
        reply = record["reply"]
        if isinstance(reply, bytes):
            return reply
    raise SecureSumError("a reply to a step of a secure sum must hold its bytes and nothing else")


def subject(request: PlayRequest, plan: PrivacyPlan) -> str:
    """Return the `Terms.subject` of a round: specification of the vector, privacy plan, request, what it is asked for.

    All devices of a round answer the same request to the byte. A server that could give others a context under which
    their gradients are zero would get the vector of the one that is left out of the sum.
    """
    return f"{request.spec.digest} {plan.digest} {digest_of(request).hex()} {exchange_of(request)}"


@dataclass(frozen=True, slots=True, order=True)
class Exchange:
    """What a device contributes to, once in a run.

    Parameters
    ----------
    cycle
        Number of the cycle.
    name
        The number of the exchange in it; for a trial ``trial-`` and a digest of what is tried.
    """

    cycle: int
    name: str

    def __str__(self) -> str:
        return f"{self.cycle}.{self.name}"

    @property
    def of_trial(self) -> bool:
        return self.name.startswith(TRIAL)

    @classmethod
    def of(cls, terms: Terms) -> Exchange:
        """Return what a round is for; raises `SecureSumError` if its subject does not say."""
        cycle, dot, name = terms.subject.rpartition(" ")[2].partition(".")
        if not (dot and name and cycle.isascii() and cycle.isdecimal()):
            raise SecureSumError(f"the terms of a secure sum do not say which exchange it is for: {terms.subject!r}")
        return cls(int(cycle), name)


def exchange_of(request: PlayRequest) -> Exchange:
    """Return what a request is for; another request or another round for the same thing does not change it.

    But for trials with noise, where each part of the fleet is drawn from all devices: every request is a trial then.
    """
    if not is_trial(request.spec):
        return Exchange(request.cycle, str(request.exchange))
    terms = TrialTerms.of(request.spec)
    tried = terms.candidate.encode() + (b"" if request.context is None else b"\0" + request.context.tobytes())
    tried += b"" if terms.detailed else f"\0{request.serial}".encode()
    return Exchange(request.cycle, f"{TRIAL}{hashlib.sha256(tried).hexdigest()[:16]}")


def first_step(terms: Terms, position: int, signature: bytes) -> Step:
    """Return the step of the phase ``keys`` for the device at a position, with the signature of the terms' JSON."""
    return Step(terms.digest, terms.to_json().encode(), position.to_bytes(2, "big") + signature)


def round_to_record(state: Round) -> ConfigRecord:
    """Return the record that `round_from_record` reads."""
    parts = {
        f"{prefix}.{name}": value for prefix, field in FIELDS.items() for name, value in getattr(state, field).items()
    }
    return ConfigRecord({"terms": state.terms.to_json(), "position": state.position, **parts})


def round_from_record(record: ConfigRecord) -> Round:
    """Read the state of a round that this device stored.

    Raises
    ------
    SecureSumError
        If it cannot be read; the device has then dropped out of the round.
    """
    try:
        parts: dict[str, dict[str, bytes]] = {field: {} for field in FIELDS.values()}
        for key, value in record.items():
            prefix, dot, name = key.partition(".")
            if dot:
                parts[FIELDS[prefix]][name] = bytes(value)  # type: ignore[arg-type]
        return Round(Terms.from_json(str(record["terms"])), int(record["position"]), **parts)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise SecureSumError("this device has lost its part of the round") from error
