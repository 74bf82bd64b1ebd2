"""Devices that write down what they give: an honest server goes on after a failure, and gets no second vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.client.secure import Guard
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import ExperienceVector, VectorSpec
from fedoel.protocol.fleet.trust import Refusal
from fedoel.protocol.secagg.messages import Step
from fedoel.simulations.grid import InProcessGrid, server_identity
from fedoel.strategies.mean import Mean
from fedoel.strategies.replies import OUT
from fedoel.strategies.secure_mean import FAILED, SecureMean

from .conftest import Ledger
from .test_experience import SPEC, make_app
from .test_secure_mean import CLIENTS, Fault, Fleet, close


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def once(phase: str, clients: Iterable[int]) -> Fault:
    """Devices fail in a phase, once each."""
    waiting = set(clients)

    def fault(here: str, client: int, step: Step) -> None:
        if here == phase and client in waiting:
            waiting.discard(client)
            raise RuntimeError("the network is gone")

    return fault


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize(("phase", "back"), [("shares", 8), ("masked", 8), ("confirm", 7)])
def test_devices_that_write_down_what_they_give_take_part_in_the_next_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: str, back: int, noise: float
) -> None:
    """What they have sent in a round that failed nobody can open any more; only who has confirmed it stays out."""
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    fleet = Fleet(once(phase, range(1, CLIENTS)), records=tmp_path, noise=noise, share=1.0)
    SecureMean(fleet.server, min_available_nodes=CLIENTS, patience=1e6).start(fleet.grid, num_rounds=2)
    first, second = fleet.server.aggregates
    assert first is not None and second is not None
    assert [phase for phase, *_ in fleet.sent].count("unmask") == back + CLIENTS
    if not noise:
        assert close(first, range(CLIENTS - back, CLIENTS)) and close(second, range(CLIENTS))


def test_devices_that_are_out_of_an_exchange_end_its_tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    fleet = Fleet(once("unmask", range(1, CLIENTS)), records=tmp_path)
    SecureMean(fleet.server, min_available_nodes=CLIENTS, patience=1e6).start(fleet.grid, num_rounds=2)
    first, second = fleet.server.aggregates
    assert first is None and close(second, range(CLIENTS))
    assert fleet.server.traffic[0].refused == {FAILED: 1, "keys: client AlreadyContributed": CLIENTS}
    assert fleet.server.safeguards.rounds == 3


class TiringFleet(Fleet):
    """Its devices take part in three rounds of one exchange."""

    def guard(self, client: int) -> Guard:
        guard = super().guard(client)
        return replace(guard, trust=replace(guard.trust, rounds=3))


def test_an_exchange_ends_whose_rounds_fail_more_often_than_devices_take_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Devices that die while they play, in every round, would keep the others at work for as long as the patience."""
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)

    def fault(phase: str, client: int, step: Step) -> None:
        if phase == "masked" and client >= CLIENTS - 4:
            raise RuntimeError("out of memory")

    fleet = TiringFleet(fault, records=tmp_path)
    SecureMean(fleet.server, min_available_nodes=CLIENTS, patience=1e6).start(fleet.grid, num_rounds=1)
    assert fleet.server.aggregates == [None]
    assert fleet.server.traffic[0].refused == {FAILED: 1, "keys: client TooManyRounds": CLIENTS}
    assert [phase for phase, *_ in fleet.sent].count("shares") == 3 * CLIENTS


def test_a_plain_exchange_is_not_asked_for_again_where_all_have_answered_it_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With noise of its own a device answers a request once; whoever is only busy is asked again."""
    monkeypatch.setattr("fedoel.strategies.delivery.RETRY_SECONDS", 0.0)
    tries: list[int] = []

    def refusing(client: int, spec: VectorSpec) -> ExperienceVector:
        tries.append(client)
        busy = client == 0 and len(tries) <= 2
        raise FedoelError(f"code: {'NotNow' if busy else Refusal.DONE}")

    server = Ledger(SPEC)
    Mean(server, patience=1e6).start(InProcessGrid(make_app(refusing), 2, {}), num_rounds=1)
    assert server.aggregates == [None] and server.traffic[0].refused == {OUT: 2}
    assert len(tries) == 4
