"""A device's round as a Flower record: it must outlive the process that answers one message, and nothing more."""

from __future__ import annotations

from flwr.app import ConfigRecord

from ..errors import SecureSumError
from .device import Round
from .terms import Terms

KINDS = ("secrets", "asked", "replies")


def round_to_record(state: Round) -> ConfigRecord:
    """Write what `round_from_record` reads."""
    parts = {f"{kind}.{name}": value for kind in KINDS for name, value in getattr(state, kind).items()}
    return ConfigRecord({"terms": state.terms.to_json(), "position": state.position, **parts})


def round_from_record(record: ConfigRecord) -> Round:
    """Read a round of this device's own.

    Raises
    ------
    SecureSumError
        If it cannot be read: the device then drops out of the round.
    """
    try:
        found: dict[str, dict[str, bytes]] = {kind: {} for kind in KINDS}
        for key, value in record.items():
            kind, dot, name = key.partition(".")
            if dot:
                found[kind][name] = bytes(value)  # type: ignore[arg-type]
        return Round(Terms.from_json(str(record["terms"])), int(record["position"]), **found)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise SecureSumError("this device has lost its part of the round") from error
