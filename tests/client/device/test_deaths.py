"""Processes of a device that die at work are noticed, and told in the answers of one cycle, if the owner allows it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedoel.client.app import make_app
from fedoel.client.device.deaths import DIED, died, forget, working
from fedoel.client.runtime import SimulatedRuntime
from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, TrialConfig
from fedoel.protocol.experience import Floats
from fedoel.protocol.messages import request_to_records, vector_from_reply
from fedoel.protocol.signing import sign_request
from fedoel.protocol.trials import ACTION, TrialTerms, health_of
from fedoel.server.fleet import owner_key
from fedoel.simulations.grid import server_identity

from .conftest import Joined
from .fleet_of_devices import in_the_log

CONFIG = RunConfig(
    games=GamesConfig(families="frozen-lake size=3 turns=4", per_client=3), policy=PolicyConfig(backend="tactics"),
    trial=TrialConfig(games=1, health=True),
)  # fmt: skip
AT_WORK = """
import sys
from pathlib import Path
from fedoel.client.device.deaths import working
with working(Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def at_work(folder: Path) -> subprocess.Popen[str]:
    """Start a process that works until its input ends."""
    arguments = [sys.executable, "-c", AT_WORK, str(folder)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "at work\n"
    return process


def test_a_killed_process_is_told_for_one_cycle_and_a_living_one_is_not(tmp_path: Path) -> None:
    killed, living = at_work(tmp_path), at_work(tmp_path)
    assert not died(tmp_path, "cycle 1")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with working(tmp_path):
        pass
    told = [died(tmp_path, asked) for asked in ("cycle 1", "cycle 1", "cycle 2", "cycle 2")]
    assert told == [True, True, False, False]
    living.communicate("")
    assert living.returncode == 0 and not died(tmp_path, "cycle 3")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_an_error_is_no_death_and_neither_is_a_process_that_the_owner_has_stopped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a game"), working(tmp_path):
        raise ValueError("a game")
    assert not died(tmp_path, "1")
    (tmp_path / "ab.mark").touch()  # of a process that was ended with the service
    forget(tmp_path)
    assert not died(tmp_path, "1")


def test_a_second_death_is_told_again(tmp_path: Path) -> None:
    for asked in ("1", "2"):
        (tmp_path / "ab.mark").write_text("17 here")
        assert died(tmp_path, asked)


def test_a_disk_that_refuses_marks_does_not_keep_a_device_from_working(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with working(tmp_path / "file"):
        pass
    assert not died(tmp_path / "file", "1")
    forget(tmp_path / "file")


def health(joined: Joined, cycle: int, serial: int) -> Floats:
    """Ask a device for a trial, and return what its answer says of its health."""
    spec = replace(TrialTerms.of_run(CONFIG, "v3"), detailed=True).spec("v2", ("frozen-lake",))
    candidate = {"weights": np.ones(DIMENSION, np.float32)}
    plain = replace(
        joined.request("v2", serial), cycle=cycle, spec=spec, baseline=None, candidate=candidate, config=CONFIG.digest
    )
    keys = joined.server / "fleet"
    request = in_the_log(keys, sign_request(owner_key(keys), replace(plain, signature=b"", log=None)))
    node = {"home": str(joined.device.path), "partition-id": 0, "num-partitions": 1}
    context = Context(1, 1, node, RecordDict(), dict(CONFIG.to_flat()))  # type: ignore[arg-type]
    message = Message(request_to_records(request), dst_node_id=2, message_type=ACTION)
    counts = health_of(vector_from_reply(make_app(SimulatedRuntime())(message, context).content, spec))
    assert counts is not None
    return counts


def test_an_answer_to_a_trial_tells_of_a_death_if_the_owner_allows_it(joined: Joined) -> None:
    marks = joined.device.working
    joined.device.settings.write_text("[trust]\nhealth = true\n")
    marks.mkdir()
    (marks / "ab.mark").touch()
    told = [health(joined, cycle, serial) for serial, cycle in enumerate((1, 1, 2), start=1)]
    assert [counts[:, 1].sum() for counts in told] == [1, 1, 0]
    assert all(counts[:, 0].sum() == counts[:, 2].sum() == counts[:, 3:7].sum() == 1 for counts in told)
    joined.device.settings.write_text("")  # as in a device that joined under an earlier release
    (marks / "cd.mark").touch()
    assert not health(joined, 3, 4).any() and (marks / DIED).exists()
