"""The pages that make a fleet: their commands run as processes, on the loopback interface and with few small games.

Sections stand side by side on a page, for the server and for a device: what a fleet needs first comes first here.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedoel.cli.main import main
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.settings import DeviceSettings, read_settings
from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.files import replace_file
from fedoel.server.red_lines import read_red_lines
from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet

from ..deployment.conftest import begin_ledger, summary
from .pages import PAGES, Snippet, snippets

ORDER = (
    "server init", "device join .* --name", "server enroll", "device join .* --bundle", "server start", "server status",
    "device doctor", "device start",
)  # fmt: skip
WAIT = 600.0  # seconds
KEY = bytes([7]) * 32  # from which a device's games follow
# One device learns enough of these games for a version that is promoted.
RUN = {
    "cycles": 1, "games": {
        "families": "orchard turns=6", "per-client": 60, "rehearsal": 24, "gate": 24, "held-out": 8,
        "held-out-teacher": 1,
    },
    "strategy": {"name": "mean", "min-available-nodes": 1, "patience": 600.0}, "server": {"public": "games"},
}  # fmt: skip


def in_fleets(*names: str) -> list[Snippet]:
    found = [snippet for page in PAGES if page.name in names for snippet in snippets(page)]
    return [snippet for snippet in found if snippet.in_fleet and not snippet.why_not]


def stage(command: str) -> int:
    """When a command comes: the place of what a fleet needs first, and their number for the rest."""
    return next((n for n, start in enumerate(ORDER) if re.match(f"fedoel {start}", command)), len(ORDER))


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    return {k: merged(below.get(k, {}), v) if isinstance(v, dict) else v for k, v in both.items()}


class Walk:
    """The commands of pages, one after the other, in a folder where the server's is called `server`."""

    def __init__(self, folder: Path, changes: dict[str, Any]) -> None:
        self.fleet, self.changes = LoopbackFleet(folder, (), SHORTEST_HEARTBEAT), changes
        self.folder, self.head = folder, ""

    def run(self, command: str) -> None:
        """Run a command; servers and devices stay."""
        words = self.local(shlex.split(command)[1:])
        what = words[:2]
        if what[1] == "start":
            self.start(words[2])
            return
        with chdir(self.folder), redirect_stdout(StringIO()) as printed:  # a process for each takes a second more
            assert main(words) == 0, shlex.join(words)
        said = printed.getvalue()
        if what == ["device", "status"]:
            self.head = re.findall(r"head (\d+:[0-9a-f]{64})", said)[0]
        elif what == ["server", "init"]:
            file = self.fleet.server / "run.toml"
            run = merged(tomllib.loads(file.read_text(encoding="utf-8")), self.changes)
            file.write_text(tomli_w.dumps(run), encoding="utf-8")

    def local(self, words: list[str]) -> list[str]:
        """Return a command with addresses, folders, files, hours, versions and heads that there are here."""
        run = self.fleet.server / "run" / "summary.json"
        cycles = summary(self.folder)["cycles"] if run.is_file() else []
        names = cycle(record["version"] for record in reversed(cycles))  # what was promoted, then what was before
        here = {
            "/srv/fleet": "server", "fleet": "server", "fleet.example.org": "localhost", "22:00-07:00": "",
            "kitchen.pub": "device/kitchen.pub", "57:9f3a...": self.head,
            "/etc/systemd/system/fedoel-device.service": "unit.service", "$USER": "fedoel",
        }  # fmt: skip
        words = [next(names) if word in {"VERSION", "A", "B"} else here.get(word, word) for word in words]
        if words[:2] == ["server", "init"]:
            port = str(self.fleet.port)
            if "--set" in words and (self.fleet.server / "run.toml").exists():  # of another page's fleet, in its place
                words = words[: words.index("--set")]
            words += ["--port", port, "--listen", f"127.0.0.1:{port}"]
        return words

    def start(self, who: str) -> None:
        if who != "server":
            replace_file(DeviceFolder(self.folder / who).game_key, KEY.hex(), secret=True)
        self.fleet.start(who)
        if who == "server":
            self.fleet.wait(lambda: "may connect" in self.fleet.said("server"), WAIT)
            begin_ledger(self.fleet.server / "run")

    def finish(self) -> None:
        """Wait until the run is complete, once."""
        if "server" not in self.fleet.running:
            return
        self.fleet.wait(lambda: self.fleet.over("server"), WAIT)
        assert self.fleet.running.pop("server").returncode == 0, self.fleet.said("server")


def check_block(snippet: Snippet, folder: Path) -> None:
    """Check a block that is no command: settings of a device or a run, or lines of the file of red lines."""
    if snippet.text.startswith("unlock the medicine cabinet"):
        file = folder / "red-lines.txt"
        file.write_text(snippet.text, encoding="utf-8")
        assert list(read_red_lines(file)) == snippet.text.splitlines()
    elif snippet.text.startswith("[play]"):
        file = folder / "device.toml"
        file.write_text(snippet.text, encoding="utf-8")
        assert read_settings(file) != DeviceSettings()
    else:
        assert flat(tomllib.loads(snippet.text)).keys() <= RunConfig().to_flat().keys(), snippet.text


def flat(table: dict[str, Any]) -> dict[str, Any]:
    pairs = [(k, flat(v)) if isinstance(v, dict) else (k, v) for k, v in table.items()]
    return {f"{k}.{n}" if n else k: w for k, v in pairs for n, w in (v.items() if isinstance(v, dict) else [("", v)])}


def walk(here: Sequence[Snippet], folder: Path, changes: dict[str, Any]) -> Walk:
    """Run the commands of these snippets and check the others; whoever calls it ends the fleet."""
    for snippet in here:
        if snippet.command is None:
            check_block(snippet, folder)
    walked = Walk(folder, changes)
    try:
        for command in sorted({snippet.text: None for snippet in here if snippet.command is not None}, key=stage):
            if stage(command) == len(ORDER):
                walked.finish()
            walked.run(command)
    finally:
        walked.fleet.end()
    return walked


@pytest.mark.slow
def test_a_fleet_is_made_by_the_commands_of_readme_and_of_the_pages_on_deployment(tmp_path: Path, cache: Path) -> None:
    walked = walk(in_fleets("README.md", "deploy.md", "raspberry-pis.md"), tmp_path, RUN)
    assert "ExecStart" in (tmp_path / "unit.service").read_text()
    run = walked.fleet.server / "run"
    assert [cycle["decision"] for cycle in summary(tmp_path)["cycles"]] == ["warm-start", "promoted"]
    assert (run / "journal.jsonl").read_text().count('"by": "operator"') == 2  # rollback, and promote


@pytest.mark.slow
def test_the_two_devices_of_the_tutorial_end_their_run(tmp_path: Path, cache: Path) -> None:
    here = in_fleets("tutorial.md")
    [said] = [tomllib.loads(snippet.text) for snippet in here if snippet.language == "toml"]
    few = {"games": {"families": "frozen-lake size=3 turns=6", "rehearsal": 8, "gate": 8, "held-out": 4}}
    walk(here, tmp_path, merged(few, said))
    assert [cycle["accepted"] for cycle in summary(tmp_path)["cycles"]] == [0, 2]
