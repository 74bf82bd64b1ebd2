"""Trajectories as compressed JSON, for the device's store. Nothing that a codec reads is lost."""

from __future__ import annotations

import json
import zlib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError, StoreError
from ..protocol.formats import EPISODE
from ..protocol.play import GameSpec, Trajectory, Turn
from ..protocol.situation import Situation


def trajectory_to_bytes(trajectory: Trajectory) -> bytes:
    """Serialise a trajectory."""
    values = {"format": EPISODE.current, **_fields(trajectory), "spec": str(trajectory.spec)}
    return zlib.compress(json.dumps(values, default=_plain).encode())


def trajectory_from_bytes(data: bytes) -> Trajectory:
    """Read what `trajectory_to_bytes` has written.

    Raises
    ------
    StoreError
        If the bytes are not a trajectory, or are of another format.
    """
    try:
        fields: dict[str, Any] = json.loads(zlib.decompress(data))
        EPISODE.check(fields.pop("format"), "a stored trajectory")
        turns = tuple(_turn(turn) for turn in fields.pop("turns"))
        return Trajectory(spec=GameSpec.parse(fields.pop("spec")), turns=turns, **fields)
    except ConfigError as error:
        raise StoreError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise StoreError("a stored trajectory cannot be read") from error


def _turn(fields: dict[str, Any]) -> Turn:
    situation: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields["situation"].items()
    }
    situation["done"] = frozenset(situation["done"])
    log_probs = np.array(fields["log_probs"], dtype=np.float32)
    response, refused = fields.get("response", ""), fields.get("refused", False)
    return Turn(Situation(**situation), log_probs, fields["action"], fields["reward"], response, refused)


def _fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record that differ from their defaults, as they are: `dataclasses.asdict` copies them."""
    values = ((field, getattr(record, field.name)) for field in fields(record))
    return {field.name: value for field, value in values if field.default is MISSING or value != field.default}


def _plain(value: Any) -> Any:
    """Return what JSON does not know: records as tables, log-probabilities and the set of commands given as lists."""
    if is_dataclass(value):
        return _fields(value)
    return value.tolist() if isinstance(value, np.ndarray) else sorted(value)
