"""Flower's tasks start with our commands, and their tokens stay secret."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResultStatus

from fedoel.protocol.errors import FedoelError
from fedoel.protocol.host.flower import put_in_place, superexec_command
from fedoel.protocol.host.forked import FORKS
from fedoel.protocol.host.processes import environment_of_children
from fedoel.protocol.host.superexec import TaskExecutor

TOKEN = "a5" * 16
TASK = ExecutionSpec(
    task_type=TaskType.CLIENT_APP, runtime_api_address="127.0.0.1:9", token=TOKEN, insecure=True,
    root_certificates_path=None, runtime_dependency_install=False, parent_pid=None, suppress_output=True, task_id=7,
)  # fmt: skip
NOTE = 'import json, sys; json.dump([sys.argv, open(sys.argv[4]).read()], open("{}", "w"))'


def test_a_task_s_token_is_in_a_file_of_the_owner_for_as_long_as_its_process_runs(tmp_path: Path) -> None:
    noted, gate = tmp_path / "noted", tmp_path / "gate"
    os.mkfifo(gate)
    program = ["python", "-c", f"{NOTE.format(noted)}; open({str(gate)!r}).read()"]
    executor = TaskExecutor({"flwr-clientapp": program}, tmp_path / "tokens")
    assert executor.launch(TASK).status is LaunchResultStatus.ACCEPTED
    executor.reconcile()
    [token] = (tmp_path / "tokens").iterdir()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    gate.write_text("end")
    deadline = time.monotonic() + 60
    while token.exists() and time.monotonic() < deadline:
        executor.reconcile()
        time.sleep(0.01)
    assert not token.exists()
    arguments, read = json.loads(noted.read_text())
    assert arguments[1:3] == ["--runtime-api-address", "127.0.0.1:9"] and "--insecure" in arguments
    assert read == TOKEN and TOKEN not in " ".join(arguments)


def test_a_task_of_another_type_starts_nothing(tmp_path: Path) -> None:
    executor = TaskExecutor({"flwr-clientapp": ["false"]}, tmp_path)
    result = executor.launch(replace(TASK, task_type=TaskType.SERVER_APP))
    assert result.status is LaunchResultStatus.FAILED
    assert not list(tmp_path.iterdir())


CLOSES = """\
import sys, time
from pathlib import Path
from fedoel.protocol.host.superexec import TaskExecutor
from test_flower import TASK
executor = TaskExecutor({"flwr-clientapp": "a_module"}, Path("tokens"))
print(executor.launch(TASK).status.name)
while not Path("runs").exists() and list(Path("tokens").iterdir()):
    time.sleep(0.01)
executor.close()
"""


@pytest.mark.parametrize(
    ("module", "status", "tokens"),
    [("import pathlib, time\ndef main(): pathlib.Path('runs').touch(); time.sleep(600)", "ACCEPTED", 1),
     pytest.param("raise ValueError('half an update')", "FAILED", 0,
                  marks=pytest.mark.skipif(not FORKS, reason="no process is forked"))],
)  # fmt: skip
def test_a_superexec_that_ends_waits_for_no_task(tmp_path: Path, module: str, status: str, tokens: int) -> None:
    """Python waits for processes of its fork server, and a task may never end; one that did not start has no token."""
    (tmp_path / "a_module.py").write_text(module)
    environment = environment_of_children()
    folders = [str(tmp_path), str(Path(__file__).parent), environment["PYTHONPATH"]]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    done = subprocess.run(
        [sys.executable, "-c", CLOSES], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert done.stdout == f"{status}\n"
    assert len(list((tmp_path / "tokens").iterdir())) == tokens


def test_a_name_that_flower_has_no_longer_ends_the_process() -> None:
    module = ModuleType("flwr.some")
    with pytest.raises(FedoelError, match=r"this release of Flower has no flwr\.some\.gone"):
        put_in_place(module, "gone", None)


def test_the_secret_of_tasks_is_made_anew_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path, secrets = tmp_path / "flower" / "runtime.secret", set[bytes]()
    for _ in range(2):
        words = superexec_command({"flwr-clientapp": ["a"]}, "127.0.0.1:9", path)
        secrets.add(path.read_bytes())
    assert len(secrets) == 2 and all(len(secret) == 32 for secret in secrets)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in words and "--insecure" in words
