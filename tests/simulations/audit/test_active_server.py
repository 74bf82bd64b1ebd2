"""A thousand schedules of a server that cheats get nothing out of honest devices but what their owners allow."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fedoel.client import secure
from fedoel.client.device.record import DeviceRecord
from fedoel.client.secure import Guard
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.fleet.membership import Membership
from fedoel.protocol.fleet.trust import Refusal, Trust
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.release import CODE as RELEASE_CODE
from fedoel.protocol.secagg import device, graph, terms
from fedoel.protocol.secagg.device import Round
from fedoel.protocol.secagg.keys import Advert
from fedoel.protocol.secagg.messages import exchange_of
from fedoel.simulations.audit import hostile
from fedoel.simulations.grid import server_identity

from .schedules import RecordInMemory, run_schedules

SCHEDULES = 1000
CODES = (
    {refusal.value for refusal in Refusal} | {RELEASE_CODE} | {error.__name__ for error in FedoelError.__subclasses__()}
)


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def test_no_schedule_of_a_server_that_cheats_gets_more_than_the_owners_allow(tmp_path: Path) -> None:
    """Five honest devices, and up to three members of the server's own, which has every key of the fleet.

    What the server can compute is not judged by the devices' code but from everything that they have sent
    (`fedoel.simulations.audit.adversary`), and checked against the vectors that went in. A breach is

    * a vector that a device has sent by itself;
    * a sum over answers to different requests, under some of which vectors are zero;
    * a device in a round whose terms the fleet's key has not signed;
    * a sum over one honest device, whichever keys the others are shown;
    * a sum over fewer devices than `trust.least-cohort`: over fewer known ones where the owner names them, and else
      over fewer members, of which the server's own are at most `trust.colluding` of the cohort;
    * a sum whose noise, of as many shares as it has members, or known devices, is less than `trust.least-noise`;
    * a combination of sums without noise that depends on fewer vectors than that, as the difference of two sums does
      that one device is in once; a device has one vector for a run and cycle;
    * a vector for a request that the fleet's key has not signed, or not for the configuration that came with it, or
      that is older than the last.
    """
    opened = 0
    for schedule in run_schedules(range(SCHEDULES), tmp_path):
        assert not schedule.breaches(), f"seed {schedule.seed}"
        assert schedule.server.refused.keys() <= CODES, f"seed {schedule.seed}: a device has failed, and not refused"
        opened += sum(bool(a_round.transcript.opened_sums()) for a_round in schedule.rounds)
    assert opened > SCHEDULES / 10, "the devices take part where a server keeps to what is allowed"


def without(function: Callable[..., Any], check: str) -> Callable[..., Any]:
    """Return a function whose condition of a check is never met, with the names of its own module."""
    source = dedent(inspect.getsource(function))
    assert source.count(check) == 1, f"{function.__name__} has no {check!r}"
    body = source.replace(check, "if False:")
    namespace = dict(vars(sys.modules[function.__module__]))
    exec(compile(f"from __future__ import annotations\n{body}", function.__name__, "exec"), namespace)
    made: Callable[..., Any] = namespace[function.__name__]
    return made


def forgetful(state: Round, phase: str, request: bytes) -> bool:
    """Answer every request, whatever was answered before; secrets are needed for that (`remembering`)."""
    return False


def remembering(state: Round, survivors: bytes, signatures: bytes) -> Round:
    """Keep the secrets after the last phase."""
    kept = state.secrets
    opened = ORIGINAL_UNMASK(state, survivors, signatures)
    return Round(opened.terms, opened.position, kept, opened.request_digests, opened.replies)


def noise_of_members(guard: Guard, state: Round) -> int:
    """Count whoever is on the list, although the owner names those that he knows."""
    return max(guard.trust.least_cohort, state.terms.minimum)


def subject_without_request(request: PlayRequest, plan: PrivacyPlan) -> str:
    """Name a round as earlier releases did."""
    return f"{request.spec.digest} {plan.digest} {exchange_of(request)}"


def only_as_the_terms_say(of_terms: graph.Graph, cohort: int, others: int) -> int:
    """Pick as many neighbours as the terms say, however few are shown."""
    return min(of_terms.neighbours, others)


ORIGINAL_UNMASK = device.unmask
RECORDED = ("begin", "check_current", "check", "add", "confirm")


def nothing(*_: Any, **__: Any) -> None:
    """Check nothing."""


@dataclass(frozen=True)
class Defect:
    """A device without one of its checks, and the first schedule that finds it."""

    name: str
    seed: int
    patches: Sequence[tuple[Any, str, Any]]


def unchecked(owner: Any, function: Callable[..., Any], check: str) -> tuple[Any, str, Any]:
    """Return the patch that leaves out a check of a function."""
    return owner, function.__name__, without(function, check)


OTHER_EXCHANGES = "elif contribution.round and not contribution.noise and not exchange.of_trial:"
DEFECTS = (
    Defect("takes any threshold", 138, [(device, "check_graph", nothing)]),
    Defect(
        "opens a second set of survivors", 54, [
            (Round, "answered", forgetful),
            (device, "unmask", remembering),
            unchecked(DeviceRecord, DeviceRecord.confirm, 'if before and before["digest"] != digest:'),
        ],
    ),
    Defect("answers any verb", 0, [unchecked(Trust, Trust.check, "if asked.verb not in self.verbs.split():")]),
    Defect(
        "counts no members", 629, [
            (device, "_check_least", nothing),
            (graph, "least_minimum", lambda *terms: 2),  # it refuses nearly all sums that are too small for the owner
            unchecked(device, device.advertise, "if terms.minimum < least:"),
            unchecked(Trust, Trust.check, "if asked.cohort is not None and asked.cohort < self.least_cohort:"),
        ],
    ),
    Defect("knows everybody on the list", 71, [(Trust, "check_known", nothing)]),
    Defect("takes keys of strangers", 23, [(Advert, "check", nothing)]),
    Defect("writes nothing down", 67, [(RecordInMemory, name, nothing) for name in RECORDED]),
    Defect("goes on with an older round", 67, [(RecordInMemory, name, nothing) for name in ("begin", "check_current")]),
    Defect(
        "answers several exchanges of a cycle", 258, [unchecked(RecordInMemory, DeviceRecord._check, OTHER_EXCHANGES)]
    ),
    Defect(
        "adds any noise", 3,
        [unchecked(Trust, Trust.check, "if asked.noise is not None and asked.noise < self.least_noise:")],
    ),
    Defect("counts the noise of strangers", 84, [(Guard, "noisy", noise_of_members)]),
    Defect("takes another request than that of the round", 449, [(secure, "_check_terms", nothing)]),
    Defect(
        "answers another request than others in the round", 7,
        [(module, "subject", subject_without_request) for module in (secure, hostile)],
    ),
    Defect("takes terms that nobody has signed", 17, [(Membership, "check_terms", nothing)]),
    Defect(
        "picks among the keys that it is shown as if they were all", 3, [
            *((module, "count_picks", only_as_the_terms_say) for module in (graph, terms)),
            (graph, "least_minimum", lambda *terms: 2),  # it refuses the same sums
        ],
    ),
    Defect("plays what nobody has signed", 5, [(Membership, "accept", nothing)]),
    Defect(
        "plays what is older than the last", 135,
        [unchecked(Membership, Membership.accept, "if request.serial < last:")],
    ),
    Defect(
        "plays under a configuration that nobody has signed", 5,
        [unchecked(Membership, Membership.accept, "if request.config not in signed_digests(config, received or {}):")],
    ),
)  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_device_without_one_of_its_checks_is_found(
    defect: Defect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, changed in defect.patches:
        monkeypatch.setattr(owner, name, changed)
    seeds = chain(range(defect.seed, SCHEDULES), range(defect.seed))
    assert any(schedule.breaches() for schedule in run_schedules(seeds, tmp_path))
