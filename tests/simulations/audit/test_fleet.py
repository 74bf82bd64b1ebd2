"""The run of a fleet is audited by its server's folder, in which nothing changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.secagg import device
from fedoel.server.operate.folder import ServerFolder, Settings
from fedoel.server.operate.setup import init
from fedoel.simulations.audit import hidden
from fedoel.simulations.audit.active import two_sets_of_survivors
from fedoel.simulations.audit.against import against
from fedoel.simulations.audit.fleet import as_fleet, config_of_fleet
from fedoel.simulations.audit.target import Target
from fedoel.simulations.grid import server_identity
from fedoel.simulations.scenario import load_scenario

SETTINGS = Settings(("fleet.example.org",), 443, "127.0.0.1:9092")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    folder = tmp_path / "fleet"
    assert init(ServerFolder(folder), SETTINGS, {"strategy.min-available-nodes": 12, "server.public": "games"}) == 0
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fleet_is_audited_by_its_folder(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = contents(fleet), tmp_path / "card"
    monkeypatch.setattr(hidden, "MOST", 100)
    assert main(["audit", str(fleet), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "refused with AlreadyContributed | holds" in said and "over 9 devices or more" in said
    assert json.loads((out / "privacy-card.json").read_text())["promise"]["secure_sum"] is True
    assert contents(fleet) == before


def test_what_is_attacked_is_what_the_fleet_has_set(fleet: Path, tmp_path: Path) -> None:
    config = config_of_fleet(fleet)
    assert (config.clients, config.privacy.keys, config.resume) == (12, "", False)
    trust = Target(config, tmp_path).trust
    assert (trust.verbs, trust.least_cohort) == ("masked", 9)
    small = Target(config, tmp_path)
    assert small.cohort == 9 and small.small_trust == replace(trust, least_cohort=small.plan.minimum)
    file = fleet / "run.toml"
    file.write_text(file.read_text() + '\n[privacy]\nmechanism = "local"\nepsilon = 4.0\n')
    file.write_text(file.read_text().replace('"secure-mean"', '"local-mean"'))
    trust = Target(config_of_fleet(fleet), tmp_path).trust
    assert trust.verbs == "experience trial" and trust.least_noise > 0 and trust != Trust()
    assert config_of_fleet(fleet, {"clients": 50, "cycles": 1}).clients == 50


def test_devices_of_a_fleet_that_lack_a_check_are_found(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although cohorts of the audit are smaller than the fewest that the owner allows."""
    monkeypatch.setattr(device, "check_graph", lambda *terms: None)
    with server_identity():
        [safe, broken] = two_sets_of_survivors(Target(config_of_fleet(fleet), tmp_path))
    assert broken.broken and not safe.recovered


def test_a_scenario_is_audited_as_a_fleet_of_all_its_clients(tmp_path: Path) -> None:
    scenario = load_scenario("private")
    assert Target(scenario, tmp_path).trust.least_cohort == 2, "it waits for nobody"
    assert Target(as_fleet(scenario), tmp_path).trust.least_cohort == 23, "of 1,000, a tenth of which are drawn"
    [curious] = [
        line.sees for line in against(Target(as_fleet(scenario), tmp_path), []) if line.who == "a curious server"
    ]
    assert "sums over 23 devices or more" in curious, "and not 80, which an average cohort leaves"
    assert as_fleet(config := as_fleet(scenario)) == config


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path)]) == REFUSED
    assert f"{tmp_path} is not a server's folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="not a server's folder"):
        config_of_fleet(tmp_path)
