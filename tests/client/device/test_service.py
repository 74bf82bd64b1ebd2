"""The systemd unit of a device: bounded, unprivileged, and refused where systemd would read something else."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.service import service, unit
from fedoel.client.device.settings import DeviceSettings, Limits, Model
from fedoel.protocol.errors import ConfigError

from .conftest import Joined


def test_the_unit_is_bounded_and_unprivileged_and_restarts_after_flower_has_dropped_the_node(joined: Joined) -> None:
    settings = DeviceSettings(limits=Limits(threads=2, memory=700))
    text = unit(joined.device, "one", "fedoel", settings, model=True)
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    section = parser["Service"]
    assert (section["User"], section["Restart"], section["CPUQuota"]) == ("fedoel", "always", "200%")
    assert int(section["RestartSec"]) > 60
    assert section["MemoryMax"] == "1200M"
    assert section["ExecStart"].endswith(f"fedoel device start {joined.device.path}")
    if shutil.which("systemd-analyze"):
        file = joined.device.path / "fedoel-device.service"
        file.write_text(text.replace(section["ExecStart"].split()[0], "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with pytest.raises(ConfigError, match="without spaces"):
        unit(DeviceFolder(Path("/a b")), "one", "fedoel", DeviceSettings(), model=False)


def test_a_unit_sees_homes_only_if_something_that_it_reads_is_there(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    def protected(settings: DeviceSettings) -> str:
        [line] = [line for line in unit(folder, "one", "fedoel", settings, True).split("\n") if "ProtectHome" in line]
        return line

    folder = DeviceFolder(Path("/srv/device"))
    monkeypatch.setattr("sys.executable", "/opt/venv/bin/python")
    assert protected(DeviceSettings()) == "ProtectHome=yes"
    assert protected(DeviceSettings(model=Model("/home/pi/model.gguf"))) == "ProtectHome=no"
    monkeypatch.setattr("sys.executable", "/home/pi/venv/bin/python")
    assert protected(DeviceSettings()) == "ProtectHome=no"


@pytest.mark.parametrize("user", ["", "a\nExecStartPre=/bin/rm", "%h", "0", "a b"])
def test_a_unit_is_for_a_user_who_is_one(joined: Joined, user: str) -> None:
    with pytest.raises(ConfigError, match="must be the name of a user"):
        service(joined.device, user)


def test_a_unit_does_not_replace_another_file(joined: Joined) -> None:
    before = joined.device.settings.read_bytes()
    with pytest.raises(ConfigError, match=r"ends in \.service"):
        service(joined.device, "fedoel", joined.device.settings)
    assert joined.device.settings.read_bytes() == before


@pytest.mark.parametrize("place", ["/my venv/bin/python", "/opt/\tvenv/bin/python"])
def test_a_unit_needs_a_program_that_systemd_can_name(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("sys.executable", place)
    with pytest.raises(ConfigError, match="without spaces"):
        unit(joined.device, "one", "fedoel", DeviceSettings(), model=False)
