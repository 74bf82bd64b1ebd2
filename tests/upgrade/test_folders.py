"""Folders of the release before: read, resumed and migrated by today's code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.folder import DeviceFolder, open_store
from fedoel.client.trajectory_bytes import trajectory_to_bytes
from fedoel.protocol.formats import STORE
from fedoel.server.log import NAME as LOG
from fedoel.server.summary import read_summary

from .conftest import LAST, unpacked


def test_a_run_and_a_server_are_reported_listed_and_verified(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (before / "finished", before / "server"):
        version = read_summary(folder if folder.name == "finished" else folder / "run").cycles[-1].version
        assert main(["versions", str(folder)]) == 0 and f"*  {version}" in capsys.readouterr().out
        assert main(["show", str(folder), version]) == 0
        assert main(["verify", str(folder)]) == 0, capsys.readouterr().out
        page = before / "page.html"
        assert main(["dash", str(folder), "--file", str(page)]) == 0
        assert "<h1>" in (shown := page.read_text()) and 'class="problem"' not in shown and 'id="answers"' not in shown
    assert main(["report", str(before / "finished")]) == 0


def test_an_interrupted_run_ends_as_the_one_that_was_not(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = before / "interrupted"
    words = ["simulate", str(before / "frozen.toml"), "--resume", "--out", str(run), "--quiet"]
    assert main(words) == REFUSED and "policy.threads was 0 and is now 1" in capsys.readouterr().err, "a new default"
    assert main([*words, "--set", "policy.threads=0"]) == 0, capsys.readouterr().err
    ended, expected = read_summary(run).cycles, read_summary(before / "finished").cycles
    assert [(one.version, one.decision, one.held_out) for one in ended] == [
        (one.version, one.decision, one.held_out) for one in expected
    ]
    assert main(["verify", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    assert 'id="answers"' in (run / "report.html").read_text(), "answers of its versions were kept when it went on"


def test_a_device_says_what_it_keeps_and_plays(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = read_summary(before / "server" / "run").cycles[0].version
    assert main(["device", "status", str(before / "d0")]) == 1, "its service does not run"
    said = capsys.readouterr().out
    assert "3 episodes, 0 damaged" in said and f"version: {version}, of cycle 1" in said


def test_migration_says_what_it_does_does_it_once_and_leaves_all_else(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, server = DeviceFolder(before / "d0"), before / "server"
    names, rows = open_store(device).uses(), stored(device)
    changes = {"d0": "store.sqlite: format 1 -> 2", "server": "" if (server / "fleet" / LOG).exists() else "log.jsonl"}
    for folder in (device.path, server, before / "finished"):
        whole = contents(folder)
        assert main(["migrate", str(folder), "--dry-run"]) == 0
        would = capsys.readouterr().out
        assert contents(folder) == whole, "nothing was changed"
        assert changes.get(folder.name, "") in would
        assert main(["migrate", str(folder)]) == 0
        assert capsys.readouterr().out == would.replace("would change", "changed")
        assert main(["migrate", str(folder)]) == 0
        assert capsys.readouterr().out == "there is nothing to migrate\n"
    assert (server / "fleet" / LOG).exists()
    store = open_store(device)
    assert store.format == STORE.current and stored(device) == rows and rows
    assert [use.row for use in store.uses()] == [use.row for use in names] and names
    assert not {use.vector for use in store.uses()} & {use.vector for use in names}
    assert main(["verify", str(server)]) == main(["verify", str(before / "finished")]) == 0
    assert main(["device", "status", str(device.path)]) == 1


def stored(device: DeviceFolder) -> list[tuple[int, float, bytes]]:
    """Return everything that can be read of a device's store."""
    contents = open_store(device).read()
    assert not contents.damaged
    return [(row.id, row.written, trajectory_to_bytes(row.trajectory)) for row in contents.rows]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file, but for those that are locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".pid")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_run_without_a_journal_gets_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = unpacked(LAST, tmp_path) / "finished"
    (run / "journal.jsonl").unlink()
    summary = json.loads((run / "summary.json").read_bytes())
    del summary["schema"]
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert main(["migrate", str(run)]) == 0
    said = capsys.readouterr().out
    assert "summary.json: schema 1 -> 2" in said and "journal.jsonl: begun" in said
    assert json.loads((run / "summary.json").read_bytes()) == {"schema": 2, **summary}
    assert main(["verify", str(run)]) == 0
    assert main(["migrate", str(run)]) == 0 and capsys.readouterr().out.endswith("there is nothing to migrate\n")


def test_a_folder_in_use_is_not_migrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = DeviceFolder(unpacked(LAST, tmp_path) / "d0")
    hold = (
        "import sys, pathlib; from fedoel.protocol.host.lock import one_owner\n"
        "with one_owner(pathlib.Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(device.process)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout and service.stdout.readline() == "held\n"
        for words in ([], ["--dry-run"]):
            assert main(["migrate", str(device.path), *words]) == REFUSED
            assert f"process {service.pid} uses this folder: stop it first" in capsys.readouterr().err
        service.communicate()
    assert main(["migrate", str(device.path)]) == 0


def test_what_is_no_folder_of_these_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(tmp_path)]) == REFUSED
    assert "is no folder of a run, a server or a device" in capsys.readouterr().err
