"""Well-formed parts of messages, made with keys that are always the same: what a fuzzer changes."""

from __future__ import annotations

from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict

from fedoel.client.secure import STATE
from fedoel.protocol.experience import ExperienceVector, VectorSpec
from fedoel.protocol.fleet.log import EMPTY, LogExtract, leaf_of
from fedoel.protocol.fleet.membership import Membership
from fedoel.protocol.fleet.notice import Notice
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.graph import choose_graph
from fedoel.protocol.secagg.keys import CONFIRMED, Identity
from fedoel.protocol.secagg.messages import round_to_record, subject
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.terms import Terms, pack
from fedoel.protocol.signing import sign_notice, sign_request
from fedoel.protocol.trials import TrialTerms

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FLEET_KEY = KEY.public_key().public_bytes_raw()
SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
TRIAL = TrialTerms(2, 2.0, True, "v2").spec("v1", ("coin",))
PLAN = PrivacyPlan.make((Part("gradient", 4, 5.0, 1.0),), 5, 4, 1.0)
REQUEST = sign_request(
    KEY,
    PlayRequest(
        1, 1, SPEC, np.zeros((1, 2), np.float32), {"weights": np.ones(3, np.float16)}, np.zeros(4, np.float32), 7,
        PLAN.to_json(), config="0123456789abcdef",
    ),
)  # fmt: skip
GRAPH = choose_graph(5, 1 / 3, 0.0)
TERMS = Terms("ab", 1, 5, GRAPH.neighbours, GRAPH.threshold, 4, 4, 16, subject(REQUEST, PLAN))
IDENTITIES = [Identity(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(5)]
MEMBERS = frozenset(identity.public for identity in IDENTITIES)
MEMBER = Membership(IDENTITIES[0], MEMBERS, FLEET_KEY, None)
NOTICE = sign_notice(KEY, Notice(2, True, 1_700_000_000, "a fault"))
EXTRACT = LogExtract(EMPTY, leaf_of("request", {"serial": 7}) + leaf_of("notice", NOTICE.entry), b"")


@cache
def round_of_five() -> tuple[device.Round, device.Round, bytes]:
    """Return the first device's state behind the phases `shares` and `masked`, and the request of the latter."""
    server = ServerRound(TERMS, MEMBERS)
    states = [device.advertise(identity, TERMS, n) for n, identity in enumerate(IDENTITIES)]
    for n, state in enumerate(states):
        server.take_keys(n, state.replies["keys"])
    states = [device.share(state, server.adverts_for(n), MEMBERS) for n, state in enumerate(states)]
    for n, state in enumerate(states):
        server.take_shares(n, state.replies["shares"])
    request = server.shares_for(0)
    return states[0], device.mask(states[0], request, lambda: np.zeros(4, np.uint16)), request


def confirmations() -> bytes:
    """Return the signatures of all survivors by the other devices."""
    return pack((n, identity.sign(CONFIRMED, TERMS, b"\xf8")) for n, identity in enumerate(IDENTITIES) if n)


@cache
def advertised() -> device.Round:
    """Return the first device's state behind the phase `keys`."""
    return device.advertise(IDENTITIES[0], TERMS, 0)


def context_of(state: device.Round | None) -> Context:
    """Return a node's context with the state of a round, if there is one."""
    context = Context(1, 1, {}, RecordDict(), {})
    if state is not None:
        context.state[STATE] = round_to_record(state)
    return context


def never(request: PlayRequest, run: str) -> ExperienceVector:
    """Play before there is a request."""
    raise AssertionError("nothing is played for the first message")


def played(request: PlayRequest, run: str) -> ExperienceVector:
    """Return what a device has played, without play."""
    return ExperienceVector.from_parts(request.spec, {})
