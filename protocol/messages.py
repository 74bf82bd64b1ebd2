"""What travels between server and device: Flower records on one side, checked plain data on the other.

Nothing that arrives is trusted. Arrays are read from numpy's own format with their declared size compared with the
bytes that are there, so that a few bytes cannot ask for terabytes; whatever does not fit raises a `FedoelError`.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from .errors import VectorError, VersionError
from .experience import WIRE_TYPES, ExperienceVector, Vector, VectorSpec

ACTION = "train.experience"
REQUEST_FIELDS = MappingProxyType(
    {"cycle": int, "exchange": int, "spec": str, "serial": int, "plan": str, "signature": bytes}
)
MOST_WORDS, LONGEST_WORDS = 256, 20_000
NUMPY_STYPE = "numpy.ndarray"

Adapter = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """What a device is asked to do in one cycle: play with this adapter, answer with a vector of this kind.

    Parameters
    ----------
    cycle
        Number of the cycle; picks the games.
    exchange
        Number of the exchange within the cycle, from 1.
    spec
        The vector that is wanted.
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``.
    adapter
        Weights of the policy version that plays, float16 or float32.
    context
        What the cycle's earlier exchanges taught, float32 of shape ``(spec.dimension,)``: the device plays as the
        teacher does with it. None for the bare policy.
    serial
        Larger in every request of a fleet's owner than in those before.
    plan
        Privacy plan as JSON, where the device itself has to make its vector private; empty where it need not.
    signature
        Of all of this, by the fleet's owner.
    """

    cycle: int
    exchange: int
    spec: VectorSpec
    baseline: Vector
    adapter: Adapter
    context: Vector | None = None
    serial: int = 0
    plan: str = ""
    signature: bytes = b""

    def __post_init__(self) -> None:
        for name, number, least in (
            ("cycle", self.cycle, 0),
            ("exchange", self.exchange, 1),
            ("serial", self.serial, 0),
        ):
            if type(number) is not int or number < least:
                raise VectorError(f"a request needs the number of its {name}, not {number!r}")
        _check_numbers("baseline", self.baseline, (len(self.spec.families), self.spec.horizon))
        if self.context is not None:
            _check_numbers("context", self.context, (self.spec.dimension,))
        for name, weights in self.adapter.items():
            if weights.dtype not in WIRE_TYPES or not np.isfinite(weights).all():
                raise VersionError(f"adapter weights {name!r} must be finite float16 or float32, not {weights.dtype}")


def request_to_records(request: PlayRequest) -> RecordDict:
    """Write what `request_from_records` reads."""
    settings = ConfigRecord(
        {
            "cycle": request.cycle, "exchange": request.exchange, "spec": request.spec.to_json(),
            "serial": request.serial, "plan": request.plan, "signature": request.signature,
        }
    )  # fmt: skip
    context = {} if request.context is None else {"context": _to_array(request.context)}
    return RecordDict(
        {
            "request": settings,
            "baseline": ArrayRecord({"baseline": _to_array(request.baseline)}),
            "context": ArrayRecord(context),
            "adapter": ArrayRecord({name: _to_array(weights) for name, weights in request.adapter.items()}),
        }
    )


def request_from_records(records: RecordDict) -> PlayRequest:
    """Read a request.

    Raises
    ------
    VectorError
        If a part is missing, unreadable or of the wrong size.
    VersionError
        If adapter weights are not finite float16 or float32.
    """
    _only(records, {"request": ConfigRecord, **dict.fromkeys(("baseline", "context", "adapter"), ArrayRecord)})
    settings = records.config_records["request"]
    if {name: type(value) for name, value in settings.items()} != REQUEST_FIELDS:
        raise VectorError(f"a request needs {', '.join(REQUEST_FIELDS)}, and nothing else")
    fields: dict[str, Any] = dict(settings.items())
    baseline, context = (_arrays(records, name) for name in ("baseline", "context"))
    if set(baseline) != {"baseline"} or set(context) - {"context"}:
        raise VectorError("a request needs one baseline, and may have one context")
    spec = VectorSpec.from_json(fields.pop("spec"))
    return PlayRequest(
        spec=spec, baseline=baseline["baseline"], context=context.get("context"),
        adapter=_arrays(records, "adapter"), **fields,
    )  # fmt: skip


def reply_to_records(vector: ExperienceVector, words: Sequence[str] = ()) -> RecordDict:
    """Write the only thing that leaves a device: the vector, named by the digest of its specification.

    It travels in half precision, unless it has numbers too large for that.

    Parameters
    ----------
    words
        What the device says beside it, of codecs that send words.
    """
    values = vector.to_array()
    sent = values.astype(np.float16) if np.abs(values).max() <= np.finfo(np.float16).max else values
    records = RecordDict({"experience": ArrayRecord({vector.spec.digest: _to_array(sent)})})
    if words:
        records["words"] = ConfigRecord({"words": list(words)})
    return records


def words_from_reply(records: RecordDict, spec: VectorSpec) -> tuple[str, ...]:
    """Take out of a reply what it says in words; only of codecs whose contexts are words.

    Raises
    ------
    VectorError
        If they are not a list of short texts.
    """
    if spec.dimension or "words" not in records:
        return ()
    said = records.pop("words")
    given = said.get("words") if isinstance(said, ConfigRecord) and set(said) == {"words"} else None
    words = tuple(word for word in given if isinstance(word, str)) if isinstance(given, list) else ()
    if not isinstance(given, list) or not len(words) == len(given) <= MOST_WORDS:
        raise VectorError(f"the words of a reply must be a list of at most {MOST_WORDS} texts")
    if any(len(word) > LONGEST_WORDS for word in words):
        raise VectorError(f"a text of a reply is longer than {LONGEST_WORDS} characters")
    return words


def vector_from_reply(records: RecordDict, spec: VectorSpec, noisy: bool = False) -> ExperienceVector:
    """Read a reply, without its words.

    Parameters
    ----------
    noisy
        Whether the device has added noise, which no norm bounds.

    Raises
    ------
    VectorError
        If the vector is missing, mis-sized or not finite, was made for another specification or policy version, or
        if there is anything beside it.
    """
    _only(records, {"experience": ArrayRecord})
    arrays = records.array_records["experience"]
    if len(arrays) != 1:
        raise VectorError(f"a reply must hold one vector, not {len(arrays)}")
    if spec.digest not in arrays:
        raise VectorError(f"a vector was made for another specification or policy version than {spec.digest}")
    return ExperienceVector.from_array(spec, _from_array(arrays[spec.digest]), bounded=not noisy)


def records_bytes(records: RecordDict) -> int:
    """Serialised size of records, with everything in them, as Flower sends it."""
    # Of a copy: serialising caches memory views in the arrays, which can then be neither copied nor pickled.
    return len(every_byte(copy_of(records)))


def copy_of(records: RecordDict) -> RecordDict:
    """Copy records deeply, without what Flower caches in them."""
    copied = RecordDict()
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            arrays = {key: Array(a.dtype, tuple(a.shape), a.stype, a.data) for key, a in record.items()}
            copied[name] = ArrayRecord(arrays)
        else:
            copied[name] = copy.deepcopy(record)
    return copied


def every_byte(item: Any) -> bytes:
    """Everything that Flower serialises of some records."""
    return bytes(item.deflate()) + b"".join(every_byte(child) for child in (item.children or {}).values())


def _only(records: RecordDict, kinds: Mapping[str, type]) -> None:
    if set(records) != set(kinds) or any(type(records[name]) is not kind for name, kind in kinds.items()):
        raise VectorError(f"expected exactly the records {sorted(kinds)}, got {len(records)} records that differ")


def _check_numbers(name: str, values: Vector, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float32:
        raise VectorError(f"a {name} must be float32 of shape {shape}, not {values.dtype} of {values.shape}")
    if not np.isfinite(values).all():
        raise VectorError(f"a {name} holds numbers that are not finite")


def _arrays(records: RecordDict, name: str) -> dict[str, NDArray[Any]]:
    return {str(key): _from_array(array) for key, array in records.array_records[name].items()}


def _to_array(values: NDArray[Any]) -> Array:
    return Array.from_numpy_ndarray(np.ascontiguousarray(values) if values.ndim else values)


def _from_array(array: Array) -> NDArray[Any]:
    """Read an array without allocating more than its bytes."""
    stream = io.BytesIO(array.data)
    try:
        if array.stype != NUMPY_STYPE or np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not the numpy format, version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        body = stream.read()
        if fortran or dtype.hasobject or len(body) != math.prod(shape) * dtype.itemsize:
            raise ValueError("size and shape disagree")
        return np.frombuffer(body, dtype=dtype).reshape(shape)
    except Exception as error:  # numpy's header parser fails in many ways, and all of them mean the same here
        raise VectorError(f"an array of {len(array.data)} bytes cannot be read") from error
