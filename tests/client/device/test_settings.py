from __future__ import annotations

from pathlib import Path

from fedoel.client.device.settings import DeviceSettings, Limits, Play, read_settings, settings_file
from fedoel.protocol.fleet.trust import Trust


def test_the_file_of_a_device_holds_every_setting_with_its_help(tmp_path: Path) -> None:
    settings = DeviceSettings(Play("22:00-07:00", power="mains"), Limits(memory=512), trust=Trust(0.4))
    path = tmp_path / "device.toml"
    path.write_text(settings_file(settings))
    assert read_settings(path) == settings
    assert "memory = 512  # Megabytes that one request may take; 0 for no limit.\n" in path.read_text()
