"""A device's `Round` as a Flower record, which keeps it between the messages of the round."""

from __future__ import annotations

from flwr.app import ConfigRecord

from ..errors import SecureSumError
from .device import Round
from .terms import Terms

FIELDS = {"secrets": "secrets", "asked": "request_digests", "replies": "replies"}  # key prefix to field


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
