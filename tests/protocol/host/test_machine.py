"""What is installed, as far as it can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.client.device.doctor import _flower
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.host.machine import installed_version
from fedoel.server.machine import this_machine


def test_a_package_whose_installation_was_interrupted_has_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with such a package had a summary that nothing could read."""
    for package in ("flwr-1.41.0", "fedoel-0.1.0"):
        (tmp_path / f"{package}.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version("flwr") == installed_version("fedoel") == installed_version("no-such-package") == ""
    assert installed_version("numpy")
    assert not {"flwr", "fedoel"} & this_machine(PolicyConfig(backend="tactics")).versions.keys()
    finding = _flower()
    assert not finding.good and finding.remedy.startswith("pip install")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "fedoel, not installed as a package\n"
