"""Messages between server and device: conversion between Flower records and checked plain data.

Received records are untrusted. Arrays are read from numpy's ``.npy`` format after comparing the declared size with the
number of bytes received, so that a short message cannot allocate much memory. Malformed records raise a `FedoelError`.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from .errors import VectorError, VersionError
from .experience import WIRE_TYPES, ExperienceVector, Vector, VectorSpec
from .fleet.log import Head, LogExtract
from .fleet.notice import FIELDS as NOTICE_FIELDS
from .fleet.notice import RECORD as NOTICE_RECORD
from .fleet.notice import Notice
from .release import RELEASE
from .trials import is_trial
from .versions import Adapter

ACTION = "train.experience"
REQUEST_FIELDS = MappingProxyType(
    {"cycle": int, "exchange": int, "spec": str, "serial": int, "plan": str, "config": str, "signature": bytes}
)
LATER = MappingProxyType({"config": ""})  # fields that earlier releases do not send
RELEASE_RECORD = "release"  # name of the record, and of its field, with the release of the device that answers
LOG = "log"  # name of the record with an extract of the fleet's log, which a simulation does not have
LOG_FIELDS = MappingProxyType({"size": int, "start": bytes, "leaves": bytes, "signature": bytes})
MAX_TEXTS, MAX_TEXT_LENGTH = 256, 20_000
NUMPY_STYPE = "numpy.ndarray"
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)(\{'descr': '(<[fiu][248])', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,9}, ?){0,8}\d{0,9})\), \} *\n)",
    re.DOTALL,
)
"""An array's magic number, length of the header, and header with data type and shape (numpy.lib.format)."""


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """The server's request to a device in one exchange: play with this adapter and reply with a vector of this spec.

    With a specification of `fedoel.protocol.trials`, it asks to try something against this adapter: its context or, if
    there is one, the candidate.

    Parameters
    ----------
    cycle
        Index of the cycle, from 0; determines the games.
    exchange
        Number of the exchange within the cycle, from 1.
    spec
        Specification of the vector to send.
    baseline
        Mean return-to-go by family and step, float32 of shape ``(families, horizon)``; None if the device estimates it.
    adapter
        Weights of the policy version that plays, by name, float16 or float32.
    context
        The teacher's context after the cycle's earlier exchanges, float32 of the codec's dimension, under which the
        device plays; in a trial, the one that is tried. None for the policy without context.
    serial
        Serial number; increases with every request of the fleet.
    plan
        Privacy plan as JSON if the device has to add noise itself (local privacy), else empty.
    signature
        Ed25519 signature of the fleet's owner over all other fields.
    parameters
        Public parameters of the codec by name, float16 or float32; empty for codecs that have none.
    candidate
        Weights of the version that is tried, like those of the adapter; empty in other requests.
    config
        Digest of the run's configuration (`RunConfig.digest`), which Flower sends beside the request and unsigned;
        empty in requests of releases that did not sign it, which devices keep and do not accept.
    log
        The newest part of the fleet's log, which holds this request; it has a signature of its own. None in a
        simulation.
    more
        Fields of a later release, which this one does not know, as JSON: they are signed, and not used.

    Raises
    ------
    VectorError
        If a number is out of range, or baseline or context have the wrong shape or type or are not finite.
    VersionError
        If adapter weights or parameters are not finite float16 or float32.
    """

    cycle: int
    exchange: int
    spec: VectorSpec
    baseline: Vector | None
    adapter: Adapter
    context: Vector | None = None
    serial: int = 0
    plan: str = ""
    signature: bytes = b""
    parameters: Adapter = field(default_factory=dict)
    candidate: Adapter = field(default_factory=dict)
    config: str = ""
    log: LogExtract | None = None
    more: str = ""

    def __post_init__(self) -> None:
        for name, number, minimum in (
            ("cycle", self.cycle, 0),
            ("exchange", self.exchange, 1),
            ("serial", self.serial, 0),
        ):
            if type(number) is not int or number < minimum:
                raise VectorError(f"the {name} of a request must be an integer of at least {minimum}, not {number!r}")
        if self.baseline is not None:
            _check_numbers("baseline", self.baseline, (len(self.spec.families), self.spec.horizon))
        if self.context is not None:
            size = len(self.context.ravel()) if is_trial(self.spec) else self.spec.dimension
            _check_numbers("context", self.context, (size,))
        weights = (("adapter weights", self.adapter), ("weights of a candidate", self.candidate))
        for kind, arrays in (*weights, ("codec parameters", self.parameters)):
            for name, array in arrays.items():
                if array.dtype not in WIRE_TYPES or not np.isfinite(array).all():
                    raise VersionError(f"{kind} {name!r} must be finite float16 or float32, not {array.dtype}")


def optional_arrays(request: PlayRequest) -> dict[str, Vector]:
    """Return the arrays that a request may leave out, by name, where it has them."""
    optional = {"baseline": request.baseline, "context": request.context}
    return {name: array for name, array in optional.items() if array is not None}


def request_to_records(request: PlayRequest) -> RecordDict:
    """Return the records of a request; `request_from_records` reads them."""
    settings = ConfigRecord(
        {
            "cycle": request.cycle, "exchange": request.exchange, "spec": request.spec.to_json(),
            "serial": request.serial, "plan": request.plan, "config": request.config, "signature": request.signature,
        }
    )  # fmt: skip
    arrays: dict[str, dict[str, Array]] = {"baseline": {}, "context": {}}
    arrays |= {name: {name: _to_array(array)} for name, array in optional_arrays(request).items()}
    adapters = {"adapter": request.adapter, "parameters": request.parameters, "candidate": request.candidate}
    arrays |= {name: {key: _to_array(array) for key, array in adapter.items()} for name, adapter in adapters.items()}
    records = RecordDict({"request": settings, **{name: ArrayRecord(some) for name, some in arrays.items()}})
    if (log := request.log) is not None:
        start = log.start
        records[LOG] = ConfigRecord(
            {"size": start.size, "start": start.digest, "leaves": log.leaves, "signature": log.signature}
        )
    return records


def request_from_records(records: RecordDict) -> PlayRequest:
    """Read a request.

    Raises
    ------
    VectorError
        If a record or field is missing, unexpected, unreadable or of the wrong size.
    VersionError
        If adapter weights are not finite float16 or float32.
    """
    arrays = ("baseline", "context", "adapter", "parameters", "candidate")
    logged = {LOG: ConfigRecord} if LOG in records else {}
    _check_types(records, {"request": ConfigRecord, **dict.fromkeys(arrays, ArrayRecord), **logged})
    received: dict[str, Any] = dict(records.config_records["request"].items())
    fields = {**LATER, **{name: value for name, value in received.items() if name in REQUEST_FIELDS}}
    if {name: type(value) for name, value in fields.items()} != REQUEST_FIELDS:
        raise VectorError(f"a request needs {', '.join(REQUEST_FIELDS)}")
    baseline, context = (_arrays(records, name) for name in ("baseline", "context"))
    if set(baseline) - {"baseline"} or set(context) - {"context"}:
        raise VectorError("a request may have one baseline and one context")
    text = fields.pop("spec")
    if (spec := VectorSpec.from_json(text)).to_json() != text:  # its digest is taken of what is written again
        raise VectorError("the vector specification of a request is not written as this release writes it")
    return PlayRequest(
        spec=spec, baseline=baseline.get("baseline"), context=context.get("context"),
        adapter=_arrays(records, "adapter"), parameters=_arrays(records, "parameters"),
        candidate=_arrays(records, "candidate"), log=_log_from(records) if logged else None,
        more=_unknown(received), **fields,
    )  # fmt: skip


def with_notice(records: RecordDict, notice: Notice | None) -> RecordDict:
    """Add a notice to the records of a message, if there is one."""
    if notice is not None:
        records[NOTICE_RECORD] = ConfigRecord(asdict(notice))
    return records


def take_notice_from(records: RecordDict) -> Notice | None:
    """Remove the notice from the records of a message, and return it; its signature is not checked.

    Raises
    ------
    VersionError
        If it is malformed.
    """
    if NOTICE_RECORD not in records:
        return None
    record = records.pop(NOTICE_RECORD)
    values: dict[str, Any] = dict(record.items()) if isinstance(record, ConfigRecord) else {}
    if set(values) != set(NOTICE_FIELDS):
        raise VersionError(f"a notice needs {', '.join(NOTICE_FIELDS)}, and nothing else")
    return Notice(**values)


def _unknown(received: Mapping[str, Any]) -> str:
    """Return the fields of a request that this release does not know, as JSON in one way only; empty without any."""
    unknown = sorted((name, value) for name, value in received.items() if name not in REQUEST_FIELDS)
    return json.dumps([[name, type(value).__name__, _readable(value)] for name, value in unknown]) if unknown else ""


def _readable(value: Any) -> Any:
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def with_release(records: RecordDict) -> RecordDict:
    """Return an answer with this device's release beside it; `release_of_reply` reads it."""
    records[RELEASE_RECORD] = ConfigRecord({RELEASE_RECORD: RELEASE.sent})
    return records


def release_of_reply(records: RecordDict) -> str:
    """Remove the release from an answer and return it as it was sent; empty if there is none."""
    record = records.pop(RELEASE_RECORD, None)
    text = record.get(RELEASE_RECORD) if isinstance(record, ConfigRecord) else None
    return text if isinstance(text, str) else ""


def reply_to_records(vector: ExperienceVector, words: Sequence[str] = ()) -> RecordDict:
    """Return the records of a reply: the vector, under the digest of its specification, and nothing else.

    Parameters
    ----------
    vector
        Is sent as float16, or as float32 if an entry is too large for float16.
    words
        The device's texts, for codecs that send text.
    """
    values = vector.to_array()
    array = values.astype(np.float16) if np.abs(values).max() <= np.finfo(np.float16).max else values
    records = RecordDict({"experience": ArrayRecord({vector.spec.digest: _to_array(array)})})
    if words:
        records["words"] = ConfigRecord({"words": list(words)})
    return records


def words_from_reply(records: RecordDict, spec: VectorSpec) -> tuple[str, ...]:
    """Remove the texts from a reply and return them; an empty tuple for codecs that do not send text.

    Raises
    ------
    VectorError
        If they are not a list of at most `MAX_TEXTS` strings of at most `MAX_TEXT_LENGTH` characters.
    """
    if spec.dimension or "words" not in records:
        return ()
    record = records.pop("words")
    items = record.get("words") if isinstance(record, ConfigRecord) and set(record) == {"words"} else None
    texts = tuple(item for item in items if isinstance(item, str)) if isinstance(items, list) else ()
    if not isinstance(items, list) or not len(texts) == len(items) <= MAX_TEXTS:
        raise VectorError(f"the words of a reply must be a list of at most {MAX_TEXTS} texts")
    if any(len(text) > MAX_TEXT_LENGTH for text in texts):
        raise VectorError(f"a text of a reply is longer than {MAX_TEXT_LENGTH} characters")
    return texts


def vector_from_reply(
    records: RecordDict, spec: VectorSpec, noisy: bool = False, games: int | None = None
) -> ExperienceVector:
    """Read the vector of a reply whose texts, if any, were removed.

    Parameters
    ----------
    records
        The reply.
    spec
        The expected specification.
    noisy
        Whether the device has added noise, so that the clipping norms do not bound the vector.
    games
        Number of games that the device can have played, which bounds the counters; None to leave them unchecked.

    Raises
    ------
    VectorError
        If the vector is missing, has the wrong size, is not finite, is of another specification or policy version, or
        counts more than so many games can give, or if the reply contains anything else.
    """
    _check_types(records, {"experience": ArrayRecord})
    arrays = records.array_records["experience"]
    if len(arrays) != 1:
        raise VectorError(f"a reply must hold one vector, not {len(arrays)}")
    if spec.digest not in arrays:
        raise VectorError(f"a vector was made for another specification or policy version than {spec.digest}")
    vector = ExperienceVector.from_array(spec, _from_array(arrays[spec.digest]), bounded=not noisy)
    if games is not None:
        vector.counters.check(games)
    return vector


def records_bytes(records: RecordDict) -> int:
    """Return the number of bytes of records as Flower serialises them."""
    # Serialise a copy: Flower caches memory views in serialised arrays, which can then not be copied or pickled.
    return len(serialised(copy_of(records)))


def copy_of(records: RecordDict) -> RecordDict:
    """Return a deep copy of records without the data that Flower caches in them."""
    copied = RecordDict()
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            arrays = {key: Array(a.dtype, tuple(a.shape), a.stype, a.data) for key, a in record.items()}
            copied[name] = ArrayRecord(arrays)
        else:
            copied[name] = copy.deepcopy(record)
    return copied


def serialised(item: Any) -> bytes:
    """Return the bytes that Flower sends for records, those of nested records included."""
    return bytes(item.deflate()) + b"".join(serialised(child) for child in (item.children or {}).values())


def _check_types(records: RecordDict, types: Mapping[str, type]) -> None:
    if set(records) != set(types) or any(type(records[name]) is not expected for name, expected in types.items()):
        raise VectorError(f"expected exactly the records {sorted(types)}, got {len(records)} records that differ")


def _log_from(records: RecordDict) -> LogExtract:
    values: dict[str, Any] = dict(records.config_records[LOG].items())
    if {name: type(value) for name, value in values.items()} != LOG_FIELDS:
        raise VectorError(f"a part of a log needs {', '.join(LOG_FIELDS)}, and nothing else")
    return LogExtract(Head(values["size"], values["start"]), values["leaves"], values["signature"])


def _check_numbers(name: str, values: Vector, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float32:
        raise VectorError(f"a {name} must be float32 of shape {shape}, not {values.dtype} of {values.shape}")
    if not np.isfinite(values).all():
        raise VectorError(f"a {name} contains numbers that are not finite")


def _arrays(records: RecordDict, name: str) -> dict[str, NDArray[Any]]:
    return {str(key): _from_array(array) for key, array in records.array_records[name].items()}


def _to_array(values: NDArray[Any]) -> Array:
    return Array.from_numpy_ndarray(np.ascontiguousarray(values) if values.ndim else values)


def _from_array(array: Array) -> NDArray[Any]:
    """Read an array in numpy's format, version 1.0, without allocating more than the bytes received.

    The header is matched, not evaluated as numpy does: CPython before 3.11.8 and 3.12.2 can raise SystemError when
    several threads evaluate literals (python/cpython issue 106905), and a valid message would be refused.
    """
    header = _HEADER.match(array.data)
    if array.stype != NUMPY_STYPE or header is None or int.from_bytes(header[1], "little") != len(header[2]):
        raise VectorError(f"an array of {len(array.data)} bytes cannot be read: not the numpy format, version 1.0")
    shape = tuple(int(size) for size in header[4].split(b",") if size.strip())
    dtype, body = np.dtype(header[3].decode()), array.data[header.end() :]
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise VectorError(f"an array of {len(array.data)} bytes cannot be read: size and shape disagree")
    return np.frombuffer(body, dtype=dtype).reshape(shape)
