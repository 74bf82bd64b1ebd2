"""What a device accepts of its fleet's log: what continues the head that it has seen, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.errors import ConfigError, TrustError, VectorError
from fedoel.protocol.fleet.log import (
    EMPTY,
    LEAF,
    Head,
    LogExtract,
    Witness,
    head_from_text,
    leaf_of,
    read_witness,
    witness_text,
)

REQUESTS = [leaf_of("request", {"serial": serial}) for serial in range(12)]
MEMBERS = leaf_of("members", {"list": 1})


def extract(leaves: list[bytes], start: int = 0) -> LogExtract:
    """The part of a log from behind its first entries, unsigned: whoever asks has checked the signature."""
    head = EMPTY
    for leaf in leaves[:start]:
        head = head.after(leaf)
    return LogExtract(head, b"".join(leaves[start:]), b"")


def log(requests: int) -> list[bytes]:
    return [MEMBERS, *REQUESTS[:requests]]


def seen(leaves: list[bytes]) -> Witness:
    return Witness(extract(leaves).heads[-1], MEMBERS)


def test_heads_are_hashes_as_of_rfc_6962() -> None:
    leaf = hashlib.sha256(b'\0{"kind": "request", "serial": 0}').digest()
    assert REQUESTS[0] == leaf
    assert EMPTY.after(leaf) == Head(1, hashlib.sha256(b"\1" + bytes(32) + leaf).digest())


@given(st.integers(1, 10), st.integers(0, 11), st.data())
def test_a_device_follows_a_log_from_any_part_that_reaches_back_to_its_head(
    had: int, has: int, data: st.DataObject
) -> None:
    has = max(had, has)
    start = data.draw(st.integers(0, min(had, has)))
    before, after = seen(log(had)), extract(log(has), start)
    assert before.after(after, REQUESTS[has - 1], MEMBERS) == Witness(after.heads[-1], MEMBERS)


@given(st.integers(2, 10), st.integers(0, 2), st.data())
def test_another_log_is_refused_wherever_it_leaves_the_one_that_was_seen(
    had: int, more: int, data: st.DataObject
) -> None:
    """An entry that is changed, dropped, added or moved before the device's head."""
    leaves, at = log(had), data.draw(st.integers(0, had))
    forked = list(leaves)
    match data.draw(st.sampled_from(("change", "drop", "add", "swap"))):
        case "change":
            byte = data.draw(st.integers(0, LEAF - 1))
            forked[at] = bytes(b ^ (i == byte) for i, b in enumerate(forked[at]))
        case "drop":
            del forked[at]
            forked.append(leaf_of("request", {"serial": 99}))
        case "add":
            forked.insert(at, leaf_of("request", {"serial": 99}))
        case _:
            other = (at + 1) % len(forked)
            forked[at], forked[other] = forked[other], forked[at]
    request = REQUESTS[11]
    forked += [*[REQUESTS[10]] * more, request]
    with pytest.raises(TrustError, match="another one than this device has seen"):
        seen(leaves).after(extract(forked), request, MEMBERS)


def test_a_shorter_log_is_refused() -> None:
    with pytest.raises(TrustError, match="has 3 entries, and had 4 when") as refused:
        seen(log(3)).after(extract(log(2)), REQUESTS[1], MEMBERS)
    assert refused.value.code == "LogRefused"


def test_what_is_not_in_the_log_is_refused() -> None:
    stranger = leaf_of("members", {"list": 2})
    with pytest.raises(TrustError, match="the request is not in the log"):
        seen(log(3)).after(extract(log(4)), REQUESTS[9], MEMBERS)
    with pytest.raises(TrustError, match="list of members that this device was sent is not in the log"):
        seen(log(3)).after(extract(log(4)), REQUESTS[3], stranger)
    kept = seen(log(3)).after(extract([*log(3), stranger, REQUESTS[3]], start=3), REQUESTS[3], stranger)
    assert kept.members == stranger
    # A list that was found in the log once may be older than what is sent of it.
    assert kept.after(extract([*log(3), stranger, *REQUESTS[3:5]], start=5), REQUESTS[4], stranger) != kept


def test_a_device_that_was_away_for_longer_than_the_log_reaches_back_is_told_what_to_do() -> None:
    with pytest.raises(TrustError, match=r"begins behind it, at entry 5.*server log verify.*log\.head"):
        seen(log(3)).after(extract(log(7), start=5), REQUESTS[6], MEMBERS)


def test_a_device_without_a_head_takes_the_first_log_and_keeps_its_list_of_members() -> None:
    stranger = leaf_of("members", {"list": 7})
    first = Witness().after(extract(log(3), start=2), REQUESTS[2], stranger)
    assert first == Witness(extract(log(3)).heads[-1], stranger)
    with pytest.raises(TrustError, match="list of members"):  # which another list is not
        first.after(extract(log(4)), REQUESTS[3], leaf_of("members", {"list": 8}))


def test_a_witness_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "log.head"
    assert read_witness(path) == Witness()
    for witness in (seen(log(3)), replace(seen(log(2)), members=b"")):
        path.write_text(witness_text(witness))
        assert read_witness(path) == witness
    for damaged in ("", "3:ab\n\n", f"{witness_text(seen(log(3)))}x", "ä"):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(ConfigError, match="holds no head"):
            read_witness(path)


def test_texts_and_sizes_that_are_no_head_are_refused() -> None:
    assert head_from_text(f" 7:{'ab' * 32}\n") == Head(7, b"\xab" * 32)
    for text in ("", "7", f"-1:{'ab' * 32}", f"7:{'AB' * 32}", f"٧:{'ab' * 32}"):
        with pytest.raises(ConfigError, match="is no head"):
            head_from_text(text)
    for start, leaves in ((Head(-1, bytes(32)), b""), (Head(0, bytes(31)), b""), (EMPTY, bytes(33))):
        with pytest.raises(VectorError, match="no part of a log"):
            LogExtract(start, leaves, b"")
