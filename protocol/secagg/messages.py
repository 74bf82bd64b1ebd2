"""The phases of a round as Flower records: one request and one reply each, bytes that only the round itself reads."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from ..errors import SecureSumError
from ..privacy.plan import PrivacyPlan
from .device import PHASES
from .terms import Terms

# Flower's names: a category, and what an app calls its handler.
ACTIONS = {phase: f"{'train' if phase == 'masked' else 'query'}.{phase}" for phase in PHASES}
RECORD = "secure"


@dataclass(frozen=True, slots=True)
class Step:
    """What a device is asked in one phase.

    Parameters
    ----------
    round
        Digest of the round's terms, 32 bytes.
    body
        What the phase is about: terms, keys, shares, or survivors.
    extra
        In the first phase the device's position; with keys the signed list of members; with the vector its privacy
        plan; in the last what neighbours signed.
    """

    round: bytes
    body: bytes
    extra: bytes = b""

    def to_record(self) -> ConfigRecord:
        """Write what `step_from_records` reads."""
        return ConfigRecord({"round": self.round, "body": self.body, "extra": self.extra})


def step_from_records(records: RecordDict) -> Step:
    """Read a step, whatever else a message holds beside it.

    Raises
    ------
    SecureSumError
        If there is none, or it is something else.
    """
    record = records.get(RECORD)
    if not isinstance(record, ConfigRecord) or set(record) != {"round", "body", "extra"}:
        raise SecureSumError("a message holds no step of a secure sum")
    values = [record[name] for name in ("round", "body", "extra")]
    if not all(isinstance(value, bytes) for value in values):
        raise SecureSumError("a step of a secure sum must be bytes")
    return Step(*values)  # type: ignore[arg-type]


def without_step(records: RecordDict) -> RecordDict:
    """What else a message holds: the request to play."""
    return RecordDict({name: record for name, record in records.items() if name != RECORD})


def reply_records(reply: bytes) -> RecordDict:
    """Write what `reply_from_records` reads: the only thing that a device sends in a phase."""
    return RecordDict({RECORD: ConfigRecord({"reply": reply})})


def reply_from_records(records: RecordDict) -> bytes:
    """Read a reply.

    Raises
    ------
    SecureSumError
        If it is missing, or anything stands beside it.
    """
    if set(records) == {RECORD} and isinstance(record := records[RECORD], ConfigRecord) and set(record) == {"reply"}:
        reply = record["reply"]
        if isinstance(reply, bytes):
            return reply
    raise SecureSumError("a reply to a step of a secure sum must hold its bytes and nothing else")


def subject(spec_digest: str, plan: PrivacyPlan) -> str:
    """Name what a round sums: a vector of this specification under this plan."""
    return f"{spec_digest} {plan.digest}"


def first_step(terms: Terms, position: int) -> Step:
    """Ask a device to take part."""
    return Step(terms.digest, terms.to_json().encode(), position.to_bytes(2, "big"))
