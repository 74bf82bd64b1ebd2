"""A promoted version reaches one device of a real fleet first, and all of them a cycle later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.last_version import LAST, version_at
from fedoel.games.make_prompts import make_pack
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.prompt_pack import write_pack
from fedoel.simulations.loopback import LoopbackFleet

from .conftest import begin_ledger, give_keys, keys, loopback_fleet, records, tended

DEVICES, FIRST = ("one", "two", "three"), 0.01
FAMILIES = "tidy things=1 final=0 turns=8"
KEYS = keys(4, len(DEVICES))  # with these, the first cycle gives a version that wins more, and no other cycle does
RUN = f"""\
seed = 4
cycles = 3
[games]
families = "{FAMILIES}"
per-client = 6
held-out = 1
[policy]
backend = "tactics"
[strategy]
name = "mean"
min-available-nodes = {len(DEVICES)}
patience = 3600.0
[server]
public = "prompts"
prompts = "../pack.jsonl"
[trial]
games = 4
share = 1.0
[rollout]
stages = "{FIRST} 1"
"""


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    with loopback_fleet(tmp_path, DEVICES, RUN) as made:
        write_pack(tmp_path / "pack.jsonl", make_pack(specs_from_text(FAMILIES), 64, 0, cache))
        give_keys(made, KEYS)
        yield made


def versions(fleet: LoopbackFleet) -> list[str]:
    """The version that each device has played last, and would play if its owner wanted to see it."""
    return [version_at(DeviceFolder(fleet.folder / name).versions / LAST) for name in DEVICES]


@pytest.mark.slow
def test_a_version_is_with_one_device_while_the_others_have_the_one_before_and_then_with_all(
    fleet: LoopbackFleet,
) -> None:
    """The server dies while the version is with one device: the stage goes on when it comes back."""
    fleet.start("server")
    fleet.wait(lambda: "3 devices may connect" in fleet.said("server"), 120)
    begin_ledger(fleet.server / "run")
    for name in DEVICES:
        fleet.start(name)
    tended(fleet, lambda: len(records(fleet)) > 1, every=0.02)
    start, first = records(fleet)
    before, after = start.version, first.version
    assert (first.decision, first.accepted, first.reach) == ("promoted", len(DEVICES), FIRST), first.reason
    tended(fleet, lambda: after in versions(fleet), every=0.02)
    fleet.kill("server")
    assert sorted(versions(fleet)) == sorted([after, before, before])
    assert f"* is current, for {FIRST} of the fleet" in fleet.do("versions", str(fleet.server))
    fleet.start("server")
    tended(fleet, lambda: fleet.over("server"))
    assert fleet.running.pop("server").returncode == 0, fleet.said("server")
    _, _, stage, last = records(fleet)
    assert (stage.decision, stage.accepted, stage.reach, stage.version) == ("rolling-out", 1, None, after)
    assert "0 of 1 devices have gone back" in stage.reason and stage.reason.endswith("it goes to the whole fleet")
    assert last.accepted == len(DEVICES) and versions(fleet) == [after] * len(DEVICES)
    assert "everything that was checked holds" in fleet.do("verify", str(fleet.server))
