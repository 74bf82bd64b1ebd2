"""A server that has prompts only: its fleet plays, and decides in trials what is promoted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedoel.client.device.runtime import secret_of
from fedoel.client.runtime import SimulatedRuntime
from fedoel.games.make_prompts import make_pack
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.prompt_pack import write_pack
from fedoel.protocol.records.summary import CycleRecord
from fedoel.server.operate.folder import ServerFolder
from fedoel.server.operate.status import run as run_status
from fedoel.server.summary import read_summary
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.loopback import LoopbackFleet
from fedoel.simulations.page.render import keep_together
from fedoel.simulations.scenario import load_scenario
from fedoel.simulations.summary import headline, percent

from .conftest import DEVICES, MASKED, begin_ledger, give_keys, keys, loopback_fleet, tended

FAMILIES = "tidy things=1 final=0 turns=8"
# With these keys, five devices of which any four agree: the context helps, and what is distilled from it.
KEYS = keys(13)
RUN = f"""\
seed = 4
cycles = 1
[games]
families = "{FAMILIES}"
per-client = 4
held-out = 1
[policy]
backend = "tactics"
[strategy]
name = "secure-mean"
min-available-nodes = 5
patience = 3600.0
[server]
public = "prompts"
prompts = "../pack.jsonl"
[trial]
games = 2
share = 1.0
contexts = true
"""
NO_GAMES = """\
import sys

class NoGames:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("fedoel.games"):
            raise ImportError("there are no games on the server")

sys.meta_path.insert(0, NoGames())
with open({processes!r}, "a") as file:
    print(*sys.orig_argv, file=file)
"""


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    """Five devices, and a server on which games cannot be imported; nothing runs yet."""
    only_server, pack = tmp_path / "only-server", make_pack(specs_from_text(FAMILIES), 64, 0, cache)
    only_server.mkdir()
    (only_server / "sitecustomize.py").write_text(NO_GAMES.format(processes=str(tmp_path / "processes")))
    with loopback_fleet(tmp_path, DEVICES, RUN, str(only_server)) as made:
        write_pack(tmp_path / "pack.jsonl", pack)
        give_keys(made, KEYS)
        yield made


@dataclass(frozen=True, slots=True)
class WithKeys(SimulatedRuntime):
    """Simulated devices with the keys of the deployed ones, so that they play the same games."""

    def game_secret(self, client: int, run: str) -> int | None:
        return secret_of(KEYS[client], run)


def simulated(folder: Path) -> CycleRecord:
    """What the same run comes to where nothing goes wrong and all is in one process."""
    scenario = folder / "simulated" / "scenario.toml"
    scenario.parent.mkdir()
    scenario.write_text(RUN)
    out = folder / "simulated" / "run"
    begin_ledger(out)
    run_inprocess(load_scenario(str(scenario), {"clients": len(DEVICES), "out": str(out)}), runtime=WithKeys())
    return read_summary(out).cycles[1]


@pytest.mark.slow
def test_a_fleet_teaches_a_server_without_games_and_both_survive_a_death_in_a_trial(fleet: LoopbackFleet) -> None:
    """The server is killed while devices try the context, and a device while they try what was distilled from it."""
    expected = simulated(fleet.folder)
    assert expected.decision == "promoted", f"these keys no longer teach: choose others ({expected.reason})"
    fleet.start("server")
    fleet.wait(lambda: "5 devices may connect" in fleet.said("server"), 120)
    begin_ledger(fleet.server / "run")
    (fleet.folder / "pack.jsonl").unlink()  # the server has a copy
    for name in DEVICES:
        fleet.start(name)
    fleet.wait(lambda: fleet.log("one").count(MASKED) == 2, 300, every=0.02)
    fleet.kill("server")
    fleet.start("server")
    tended(fleet, lambda: fleet.log("one").count(MASKED) == 4, every=0.02)
    fleet.kill("one")
    tended(fleet, lambda: fleet.over("server"))
    assert fleet.running.pop("server").returncode == 0, fleet.said("server")
    assert "flwr-serverapp" in (fleet.folder / "processes").read_text()
    run = read_summary(fleet.server / "run")
    first, cycle = run.cycles
    assert (cycle.decision, cycle.version, cycle.accepted) == ("promoted", expected.version, 5)
    # The server decides on the context as if it had not died, and on what was distilled without the dead device.
    assert cycle.reason.split("; without")[0] == expected.reason.split("; without")[0]
    assert cycle.gate and cycle.gate.candidate
    assert (cycle.gate.teacher.episodes, cycle.gate.candidate.episodes) == (10, 8)
    said = f"{cycle.held_out.win_rate:.0%} of the fleet's own games"
    assert f"cycle 1: promoted, {said}, 5 devices accepted" in fleet.said("server")
    assert run_status(ServerFolder(fleet.server))[1:] == [
        f"  cycle 0: warm-start, wins of the fleet's own games not measured, {first.version}",
        f"  cycle 1: promoted, {said}, {cycle.version}",
    ]
    report = Path(fleet.do("report", str(fleet.server / "run")).splitlines()[0]).read_text(encoding="utf-8")
    assert f"{percent(cycle.held_out)} of the fleet's own games" in headline(run)
    assert keep_together(headline(run)).replace("'", "&#39;") in report and "held-out games" not in report
