"""Requests and replies survive serialisation, and malformed ones are refused with a `FedoelError`."""

from __future__ import annotations

import copy
import gc
import json
import time
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fedoel.protocol.errors import FedoelError, VectorError, VersionError
from fedoel.protocol.experience import Counters, ExperienceVector, VectorSpec, total
from fedoel.protocol.fleet.log import Head, LogExtract
from fedoel.protocol.messages import (
    PlayRequest,
    records_bytes,
    reply_to_records,
    request_from_records,
    request_to_records,
    vector_from_reply,
)

SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin", "cook"), 3, 50.0, 200.0)
FLOATS = st.floats(-5, 5, width=16)


def vector(flat: NDArray[Any], spec: VectorSpec = SPEC) -> ExperienceVector:
    d = spec.dimension
    return ExperienceVector(spec, flat[:d], flat[d : 2 * d], Counters(flat[2 * d :].reshape(spec.counters_shape)))


def ones(spec: VectorSpec = SPEC) -> ExperienceVector:
    return vector(np.ones(spec.size, np.float32), spec)


def request(**changes: Any) -> PlayRequest:
    whole = PlayRequest(1, 1, SPEC, np.zeros((2, 3), np.float32), {"w": np.ones(3, np.float32)})
    return replace(whole, **changes)


ADAPTERS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    hnp.arrays(
        st.sampled_from([np.float16, np.float32]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=FLOATS,
    ),
    max_size=3,
)


CONTEXTS = st.none() | hnp.arrays(np.float32, SPEC.dimension, elements=FLOATS)


@given(
    st.integers(0, 2**31), st.integers(1, 9), hnp.arrays(np.float32, (2, 3), elements=FLOATS), ADAPTERS, CONTEXTS,
    ADAPTERS,
)  # fmt: skip
@settings(max_examples=50)
def test_request_round_trip(
    cycle: int,
    exchange: int,
    baseline: NDArray[Any],
    adapter: dict[str, NDArray[Any]],
    context: NDArray[Any] | None,
    parameters: dict[str, NDArray[Any]],
) -> None:
    sent = PlayRequest(cycle, exchange, SPEC, baseline, adapter, context, parameters=parameters)
    got = request_from_records(request_to_records(sent))
    assert (got.cycle, got.exchange, got.spec, set(got.adapter)) == (cycle, exchange, SPEC, set(adapter))
    assert got.baseline is not None and np.array_equal(got.baseline, baseline)
    if context is None or got.context is None:
        assert got.context is context
    else:
        assert np.array_equal(got.context, context)
    for arrays, received in ((adapter, got.adapter), (parameters, got.parameters)):
        assert set(received) == set(arrays)
        for name, array in arrays.items():
            assert received[name].dtype == array.dtype
            assert np.array_equal(received[name], array)


@given(hnp.arrays(np.float32, SPEC.size, elements=st.floats(0, 5, width=16)))
@settings(max_examples=50)
def test_reply_round_trip(flat: NDArray[Any]) -> None:
    got = vector_from_reply(reply_to_records(vector(flat)), SPEC)
    assert np.array_equal(got.to_array(), flat)


@given(
    st.permutations(range(5)), hnp.arrays(np.float32, (5, SPEC.size), elements=st.floats(-(2.0**60), 2.0**60, width=32))
)
@settings(max_examples=50)
def test_a_sum_does_not_depend_on_the_order(order: list[int], rows: NDArray[Any]) -> None:
    forward = total(vector(row) for row in rows).to_array()
    shuffled = total(vector(rows[index]) for index in order).to_array()
    assert forward.tobytes() == shuffled.tobytes()


def test_fortran_ordered_adapters_are_sent() -> None:
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    got = request_from_records(request_to_records(request(adapter={"w": weights})))
    assert np.array_equal(got.adapter["w"], weights)


def test_a_reply_contains_the_vector_and_a_digest_and_is_small() -> None:
    spec = replace(SPEC, dimension=256, horizon=28)
    assert spec.size * 2 == 1268
    records = reply_to_records(ones(spec))
    assert set(records) == {"experience"}
    assert set(records.array_records["experience"]) == {spec.digest}
    assert records_bytes(records) <= 2048


def test_a_vector_is_sent_in_half_precision_unless_its_numbers_are_too_large() -> None:
    small, large = (ExperienceVector.unchecked(SPEC, np.full(SPEC.size, value, np.float32)) for value in (0.1, 1e5))
    half = vector_from_reply(reply_to_records(small), SPEC, noisy=True).to_array()
    assert half.dtype == np.float32 and np.array_equal(half, np.full(SPEC.size, np.float16(0.1), np.float32))
    whole = vector_from_reply(reply_to_records(large), SPEC, noisy=True).to_array()
    assert np.array_equal(whole, large.to_array())


def test_a_clipped_vector_is_accepted_after_rounding_to_half_precision() -> None:
    spec = replace(SPEC, dimension=1, clipping_norm=1.00049, fisher_norm=1.00049)
    values = np.full(spec.size, 2.0, np.float32)
    clipped = ExperienceVector.unchecked(spec, values).clipped()
    arrived = vector_from_reply(reply_to_records(clipped), spec)
    assert arrived.gradient[0] > 1.0004 * spec.clipping_norm  # it was rounded up


def test_measuring_records_leaves_them_copyable() -> None:
    records = reply_to_records(ones())
    assert records_bytes(records) == records_bytes(copy.deepcopy(records))


def _with_vector(array: NDArray[Any]) -> RecordDict:
    records = reply_to_records(ones())
    records["experience"] = ArrayRecord({SPEC.digest: Array.from_numpy_ndarray(array)})
    return records


def _with_extra() -> RecordDict:
    records = reply_to_records(ones())
    records["more"] = ConfigRecord({"text": "take the coin"})
    return records


def _with_two() -> RecordDict:
    records = reply_to_records(ones())
    vector = records.array_records["experience"][SPEC.digest]
    records["experience"] = ArrayRecord({SPEC.digest: vector, "take the coin": vector})
    return records


BAD_REPLIES = {
    "empty": RecordDict(),
    "no vector": RecordDict({"experience": ArrayRecord()}),
    "more than a vector": _with_extra(),
    "two vectors": _with_two(),
    "too long": _with_vector(np.ones(SPEC.size + 1, np.float32)),
    "too short": _with_vector(np.ones(0, np.float32)),
    "two-dimensional": _with_vector(np.ones((1, SPEC.size), np.float32)),
    "float64": _with_vector(np.ones(SPEC.size)),
    "NaN": _with_vector(np.full(SPEC.size, np.nan, np.float32)),
    "infinite": _with_vector(np.full(SPEC.size, np.inf, np.float32)),
    "negative counters": _with_vector(-np.ones(SPEC.size, np.float32)),
    "old version": reply_to_records(ones(replace(SPEC, policy_version="v0"))),
    "other vocabulary": reply_to_records(ones(replace(SPEC, vocabulary="other"))),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_bad_replies_are_refused(name: str) -> None:
    with pytest.raises(VectorError):
        vector_from_reply(BAD_REPLIES[name], SPEC)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_malformed_arrays_are_refused(data: bytes) -> None:
    records = reply_to_records(ones())
    records["experience"] = ArrayRecord({SPEC.digest: Array("float32", (SPEC.size,), "numpy.ndarray", data)})
    with pytest.raises(VectorError):
        vector_from_reply(records, SPEC)


def test_a_declared_size_above_the_bytes_received_is_refused() -> None:
    data = bytearray(Array.from_numpy_ndarray(np.ones(8, np.float32)).data).replace(b"(8,)", b"(8000000000000,)")
    records = reply_to_records(ones())
    records["experience"] = ArrayRecord({SPEC.digest: Array("float32", (8,), "numpy.ndarray", bytes(data))})
    with pytest.raises(VectorError):
        vector_from_reply(records, SPEC)


def _spec_json(**changes: Any) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), **changes})


@pytest.mark.parametrize(
    "spec",
    [
        "", "null", "[]", "{}", _spec_json(dimension="4"), _spec_json(horizon=2.5), _spec_json(families=[]),
        _spec_json(families=[1]), _spec_json(policy_version=None), _spec_json(clipping_norm=float("nan")),
        _spec_json(fisher_norm=-1.0), _spec_json(more=1), "[" * 100_000,
    ],
)  # fmt: skip
def test_bad_specifications_are_refused(spec: str) -> None:
    records = request_to_records(request())
    records["request"] = ConfigRecord({"cycle": 1, "exchange": 1, "spec": spec})
    with pytest.raises(VectorError):
        request_from_records(records)


@given(st.text(max_size=100))
@settings(deadline=None)
def test_any_specification_text_is_read_or_refused_with_a_fedoel_error(text: str) -> None:
    with pytest.raises(FedoelError):
        VectorSpec.from_json(text)


@pytest.mark.parametrize("name", ["request", "baseline", "context", "adapter", "parameters"])
def test_requests_with_a_missing_record_are_refused(name: str) -> None:
    records = request_to_records(request())
    del records[name]
    with pytest.raises(VectorError):
        request_from_records(records)


def test_a_request_takes_a_part_of_the_fleet_s_log_along() -> None:
    log = LogExtract(Head(7, bytes([1] * 32)), bytes(64), b"signature")
    assert request_from_records(request_to_records(request(log=log))).log == log
    assert request_from_records(request_to_records(request())).log is None
    assert "log" not in request_to_records(request()), "it costs a simulation nothing"


@pytest.mark.parametrize(
    "changes",
    [{"size": -1}, {"size": "7"}, {"start": bytes(31)}, {"leaves": bytes(33)}, {"signature": ""}, {"more": 1}],
)
def test_malformed_parts_of_a_log_are_refused(changes: dict[str, Any]) -> None:
    records = request_to_records(request(log=LogExtract(Head(7, bytes(32)), bytes(64), b"")))
    records["log"] = ConfigRecord({**records.config_records["log"], **changes})
    with pytest.raises(VectorError):
        request_from_records(records)


@pytest.mark.parametrize("name", ["cycle", "exchange"])
@pytest.mark.parametrize("number", [-1, 1.5, "1", True])
def test_requests_with_a_bad_number_are_refused(name: str, number: Any) -> None:
    records = request_to_records(request())
    settings: dict[str, Any] = {"cycle": 1, "exchange": 1, "spec": SPEC.to_json(), name: number}
    records["request"] = ConfigRecord(settings)
    with pytest.raises(VectorError, match=name):
        request_from_records(records)


@pytest.mark.parametrize(
    "baseline", [np.zeros((3, 2), np.float32), np.full((2, 3), np.nan, np.float32), np.zeros((2, 3))]
)
def test_bad_baselines_are_refused(baseline: NDArray[Any]) -> None:
    with pytest.raises(VectorError):
        request(baseline=baseline)


@pytest.mark.parametrize(
    "context", [np.zeros(5, np.float32), np.zeros((1, 4), np.float32), np.full(4, np.inf, np.float32), np.zeros(4)]
)
def test_bad_contexts_are_refused(context: NDArray[Any]) -> None:
    with pytest.raises(VectorError, match="context"):
        request(context=context)


def test_an_unexpected_array_in_the_context_record_is_refused() -> None:
    records = request_to_records(request(context=np.zeros(4, np.float32)))
    records["context"] = ArrayRecord({"advice": Array.from_numpy_ndarray(np.zeros(4, np.float32))})
    with pytest.raises(VectorError, match="context"):
        request_from_records(records)


@pytest.mark.parametrize("weights", [np.ones(3), np.ones(3, np.int32), np.full(3, np.nan, np.float16)])
def test_bad_adapters_are_refused(weights: NDArray[Any]) -> None:
    with pytest.raises(VersionError, match="adapter weights"):
        request(adapter={"w": weights})
    with pytest.raises(VersionError, match="codec parameters"):
        request(parameters={"w": weights})


def test_arrays_are_read_while_other_threads_read_and_collect_garbage() -> None:
    """CPython before 3.11.8 fails to evaluate numpy's header when a finalizer switches threads meanwhile."""
    records, failures = reply_to_records(ones()), list[VectorError]()

    class Slow:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            time.sleep(0.0002)

    def read() -> None:
        try:
            for _ in range(400):
                Slow()
                vector_from_reply(records, SPEC, noisy=True)
        except VectorError as error:
            failures.append(error)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        threads = [Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    assert failures == []
