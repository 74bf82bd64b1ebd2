"""A fleet whose run has finished gets more cycles in `run.toml`: the server's own app, and devices that have joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.games.make_prompts import make_pack
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.prompt_pack import write_pack
from fedoel.protocol.records.journal import RAISED
from fedoel.server.app import run
from fedoel.server.run_folder import own_folder
from fedoel.server.run_location import locate
from fedoel.server.summary import read_summary
from fedoel.simulations.grid import server_identity

from .fleet_of_devices import RUN, Devices, DevicesGrid


def test_a_finished_run_of_a_fleet_goes_on_with_more_cycles(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(specs_from_text("frozen-lake size=3 turns=4"), 32, 0, cache)
    with server_identity():
        devices = Devices.make(tmp_path, 5, RUN.replace("cycles = 2", "cycles = 1"))
        write_pack(devices.server.path / "pack.jsonl", pack)
        for cycles in ("cycles = 1", "cycles = 2"):
            devices.server.run_file.write_text(RUN.replace("cycles = 2", cycles))
            with own_folder(devices.config):
                run(DevicesGrid(devices), devices.config, cache)
    assert [record.accepted for record in read_summary(devices.server.run).cycles] == [0, 5, 5]
    (entry,) = locate(devices.server.path).journal().of_kind(RAISED)
    assert (entry.values["before"], entry.values["cycles"]) == (1, 2)
    server = str(devices.server.path)
    assert main(["verify", server]) == main(["server", "log", "verify", server]) == 0
    main(["server", "status", server])
    assert "run: 2 of 2 cycles" in capsys.readouterr().out
    devices.server.run_file.write_text(RUN.replace("cycles = 2", "cycles = 1"))
    with pytest.raises(ConfigError, match="holds a run of 2 cycles, and cycles is now 1"), own_folder(devices.config):
        raise AssertionError("a run of fewer cycles begins")
