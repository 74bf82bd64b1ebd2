"""Replies, sorted into contributions and counted refusals: one bad client must not stop a cycle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message

from ..protocol.errors import VectorError
from ..protocol.experience import Contribution, VectorSpec
from ..protocol.messages import records_bytes, vector_from_reply, words_from_reply

FAILURE = re.compile(r"code: ([A-Za-z]{1,40})'")
DUPLICATE, UNASKED, SILENT, BAD_VECTOR = "duplicate", "not asked for", "no reply", "bad vector"


@dataclass(frozen=True, slots=True)
class Sorted:
    """What a cohort sent: usable vectors in canonical order, bytes of all contents, refusals by reason."""

    contributions: tuple[Contribution, ...]
    uplink: tuple[int, ...]
    refused: Mapping[str, int]


def sort_replies(replies: Iterable[Message], asked: Mapping[str, int], spec: VectorSpec, noisy: bool = False) -> Sorted:
    """Check every reply.

    Parameters
    ----------
    asked
        Node by id of the message that was sent to it. Errors made on the way have no node of their own.
    noisy
        Whether devices have added noise themselves.
    """
    waiting, refused, uplink = dict(asked), Counter[str](), []
    accepted: list[Contribution] = []
    for reply in replies:
        node = waiting.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            refused[DUPLICATE if reply.metadata.reply_to_message_id in asked else UNASKED] += 1
        elif reply.has_error():
            refused[failure(reply)] += 1
        else:
            uplink.append(records_bytes(reply.content))
            try:
                words = words_from_reply(reply.content, spec)
                accepted.append(Contribution(node, vector_from_reply(reply.content, spec, noisy), words))
            except VectorError:
                refused[BAD_VECTOR] += 1
    if waiting:
        refused[SILENT] = len(waiting)
    return Sorted(in_order(accepted), tuple(uplink), dict(sorted(refused.items())))


def in_order(contributions: Iterable[Contribution]) -> tuple[Contribution, ...]:
    """Order contributions by their bytes.

    Node ids differ between engines and replies come in any order, but the aggregate must not depend on either.
    """
    return tuple(sorted(contributions, key=lambda each: (each.vector.to_array().tobytes(), each.words)))


def failure(reply: Message) -> str:
    """Name why a client failed: the class of its error where it is one of ours, else Flower's code; never its text."""
    found = FAILURE.search(reply.error.reason or "")
    return f"client {found[1]}" if found else f"error code {reply.error.code}"
