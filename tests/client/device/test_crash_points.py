"""A device is killed at every step that makes something durable: it forgets nothing that it gave, and goes on."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedoel.client.device.folder import open_store
from fedoel.client.device.idle import games_today, look
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.simulations.grid import server_identity

sys.path.append(str(Path(__file__).resolve().parents[3]))

from benchmarks.durable_steps import Steps

from .fleet_of_devices import PHASES, Devices, SecureRound

DELTA, NOISE = 1e-6, 5.0
EVERYBODY, GAMES = range(5), 3


class MortalRound(SecureRound):
    """A round in which each message of device 0 has a process of its own, as in Flower; one of them is killed."""

    dies_in, at, behind, steps = "", -1, False, 0

    def step(self, position: int, phase: str) -> bytes:
        if self.numbers[position] or phase != self.dies_in:
            return super().step(position, phase)
        reader, writer = os.pipe()
        if not (child := os.fork()):
            steps = Steps(self.devices.device(0).path, self.at, self.behind)
            steps.watch()
            answer = super().step(position, phase)
            with os.fdopen(writer, "wb") as out:
                pickle.dump((answer, len(steps.names), self.devices.contexts[0].state), out)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as replies:
            text = replies.read()
        os.waitpid(child, 0)
        if not text:
            raise ConnectionError("killed")
        answer, self.steps, self.devices.contexts[0].state = pickle.loads(text)
        return bytes(answer)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with server_identity():
        yield Devices.make(tmp_path_factory.mktemp("fleet")).folder


def fleet(made: Path, folder: Path) -> Devices:
    """Return a fresh copy of the fleet, whose device 0 logs what it plays."""
    shutil.copytree(made, folder)
    devices = Devices(folder)
    kept = devices.device(0)
    devices.contexts[0].node_config |= {"store": str(kept.store), "store-key": str(kept.store_key)}
    return devices


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_device_that_is_killed_at_any_step_forgets_nothing_that_it_gave_and_goes_on(
    phase: str, made: Path, tmp_path: Path
) -> None:
    devices = fleet(made, tmp_path / "whole")
    whole = MortalRound(devices, devices.request(), EVERYBODY, 1, noise=NOISE)
    whole.dies_in = phase
    assert not whole.run_to().refused and whole.steps
    spent = DeviceRuntime(devices.device(0).path).contributions.epsilon(DELTA)
    for at, behind in [*((step, False) for step in range(whole.steps)), (whole.steps - 1, True)]:
        devices = fleet(made, tmp_path / f"{at}-{behind}")
        killed = MortalRound(devices, devices.request(), EVERYBODY, 1, noise=NOISE)
        killed.dies_in, killed.at, killed.behind = phase, at, behind
        assert killed.run_to().refused == {0: f"{phase}: killed"}
        folder = devices.device(0)
        if phase in PHASES[3:]:  # its masked vector is with the server
            assert DeviceRuntime(folder.path).contributions.epsilon(DELTA) == pytest.approx(spent)
        logged = open_store(folder).read()
        assert not logged.damaged and len(logged.rows) in (0, GAMES)
        assert games_today(folder.played, f"{look().clock:%Y-%m-%d}") >= len(logged.rows)
        devices.restart(EVERYBODY)
        again = SecureRound(devices, devices.request(cycle=2), EVERYBODY, 2, noise=NOISE).run_to()
        assert not again.refused and np.linalg.norm(again.sum()) > 0
