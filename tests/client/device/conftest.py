"""A device that has joined a fleet of one, and requests that the fleet's owner has signed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.join import make_card, take_bundle
from fedoel.codecs.tactics import coordinates as tactics
from fedoel.protocol.config import RunConfig
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.signing import sign_request
from fedoel.server.fleet import owner_key
from fedoel.server.operate.folder import ServerFolder, Settings
from fedoel.server.operate.setup import enroll, init
from fedoel.simulations.grid import server_identity

from .fleet_of_devices import Devices, in_the_log


@pytest.fixture(scope="module")
def joined_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """The devices of a fleet, and its server, which all tests of a module share."""
    with server_identity():
        yield Devices.make(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def fleet_of_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Devices.make(tmp_path_factory.mktemp("fleet")).folder


@pytest.fixture
def devices(fleet_of_five: Path, tmp_path: Path) -> Iterator[Devices]:
    """Five devices of a fleet whose run is `secure-mean` without noise, with the settings that `join` has written."""
    shutil.copytree(fleet_of_five, tmp_path / "fleet")
    with server_identity():
        yield Devices(tmp_path / "fleet")


@dataclass(frozen=True)
class Joined:
    """A device that has joined, and its server's folder."""

    device: DeviceFolder
    server: Path

    def request(self, version: str = "v1", serial: int = 1, config: RunConfig | None = None) -> PlayRequest:
        """Return a signed request to play with a version, in a run with this configuration."""
        spec = VectorSpec(
            "tactics", tactics.DIMENSION, tactics.VOCABULARY, version, ("frozen-lake",), 10, 50.0, 200.0
        )  # fmt: skip
        baseline = np.zeros((1, 10), np.float32)
        weights = {"weights": np.full(tactics.DIMENSION, serial, np.float32)}
        signed = config.digest if config else ""
        plain = PlayRequest(1, 1, spec, baseline, weights, serial=serial, config=signed)
        return in_the_log(self.server / "fleet", sign_request(owner_key(self.server / "fleet"), plain))


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[str], tuple[DeviceFolder, Path]]:
    """Make a device's keys and enrol it, but do not hand it its bundle yet."""
    server = tmp_path / "server"
    init(ServerFolder(server), Settings(("127.0.0.1",), 9, "127.0.0.1:9"))

    def make(name: str) -> tuple[DeviceFolder, Path]:
        device, bundle = DeviceFolder(tmp_path / name), tmp_path / f"{name}.fleet"
        enroll(ServerFolder(server), make_card(device, name), out=bundle)
        replace_file(device.game_key, name.encode().ljust(32).hex(), secret=True)  # repeatable games
        return device, bundle

    return make


@pytest.fixture
def joined(fresh: Callable[[str], tuple[DeviceFolder, Path]], tmp_path: Path) -> Joined:
    device, bundle = fresh("one")
    take_bundle(device, bundle)
    return Joined(device, tmp_path / "server")
