"""Validation of a cohort's replies: usable contributions, and a count of refused replies by reason.

A malformed or failed reply is counted and skipped, so that a single client cannot stop a cycle.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message

from ..protocol.errors import PrivacyError, VectorError
from ..protocol.experience import Contribution, VectorSpec
from ..protocol.fleet.trust import Refusal
from ..protocol.messages import records_bytes, release_of_reply, vector_from_reply, words_from_reply
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.release import CODE, release_in, talks
from ..protocol.trials import is_possible, is_trial

FAILURE = re.compile(r"code: ([A-Za-z]{1,40})'")
OUT = f"client {Refusal.DONE}"  # the device has contributed to this exchange before, and is out of it
TIRED = f"client {Refusal.ROUNDS}"  # it takes part in no more rounds of this exchange
GONE = "error code 5"  # of Flower: the node has not said for two heartbeats that it lives
OTHER_RELEASE = f"client {CODE}"  # a device is too far behind, or ahead
DUPLICATE, UNASKED, SILENT, BAD_VECTOR = "duplicate", "not asked for", "no reply", "bad vector"


@dataclass(frozen=True, slots=True)
class SortedReplies:
    """Usable contributions in canonical order, bytes of each reply's content, and refused replies by reason."""

    contributions: tuple[Contribution, ...]
    uplink: tuple[int, ...]
    refused: Mapping[str, int]


def sort_replies(
    replies: Iterable[Message], node_by_message: Mapping[str, int], spec: VectorSpec, games: int, plan: str = ""
) -> SortedReplies:
    """Validate every reply, and separate contributions from refusals.

    Parameters
    ----------
    node_by_message
        Destination node of every message that was sent, by message id. The sender is looked up here, because error
        replies that Flower makes in transit carry no node id.
    games
        Most games that a device plays for the request, which bounds what it may count.
    plan
        Privacy plan of the request as JSON if devices add noise before they send, which lets vectors exceed the
        clipping norms, else empty.
    """
    pending, refused, uplink = dict(node_by_message), Counter[str](), []
    accepted: list[Contribution] = []
    for reply in replies:
        node = pending.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            refused[DUPLICATE if reply.metadata.reply_to_message_id in node_by_message else UNASKED] += 1
        elif reply.has_error():
            refused[failure(reply)] += 1
        else:
            uplink.append(records_bytes(reply.content))
            if not of_this_release(reply):
                refused[OTHER_RELEASE] += 1
                continue
            try:
                words = words_from_reply(reply.content, spec)
                vector = vector_from_reply(reply.content, spec, bool(plan), games)
                if plan:
                    PrivacyPlan.from_json(plan).check(vector)
                elif is_trial(spec) and not is_possible(vector):
                    raise VectorError("no device that plays the trial can have sent this")
                accepted.append(Contribution(node, vector, words))
            except (VectorError, PrivacyError):
                refused[BAD_VECTOR] += 1
    if pending:
        refused[SILENT] = len(pending)
    return SortedReplies(in_order(accepted), tuple(uplink), dict(sorted(refused.items())))


def in_order(contributions: Iterable[Contribution]) -> tuple[Contribution, ...]:
    """Order contributions by content, so that the aggregate depends neither on node ids nor on the order of arrival."""
    return tuple(sorted(contributions, key=lambda item: (item.vector.to_array().tobytes(), item.words)))


def of_this_release(reply: Message) -> bool:
    """Whether an answer is of a device whose release this server talks to; the release is removed from it.

    Devices name theirs to a server that has named its own: Flower answers in the group of the request.
    """
    named = release_of_reply(reply.content)
    return release_in(reply.metadata.group_id) is None or talks(named)


def failure(reply: Message) -> str:
    """Name the reason of an error reply: the class of one of our exceptions, or else Flower's error code.

    The text of the error is never used: it may quote private data.
    """
    match = FAILURE.search(reply.error.reason or "")
    return f"client {match[1]}" if match else f"error code {reply.error.code}"
