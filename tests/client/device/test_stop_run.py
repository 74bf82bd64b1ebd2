"""The kill switch end to end: the server's own app and the apps of devices that have joined, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from flwr.app import Message

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.notice import check_going
from fedoel.games.make_prompts import make_pack
from fedoel.protocol.errors import TrustError
from fedoel.protocol.fleet.notice import ACTION
from fedoel.protocol.play import specs_from_text
from fedoel.protocol.prompt_pack import write_pack
from fedoel.server.app import run
from fedoel.server.operate.folder import ServerFolder
from fedoel.server.run_folder import own_folder
from fedoel.server.summary import read_summary
from fedoel.simulations.grid import server_identity
from fedoel.strategies import stopped

from .fleet_of_devices import RUN, Devices, DevicesGrid

SECONDS = 60.0


@pytest.fixture
def devices(tmp_path: Path, cache: Path) -> Iterator[Devices]:
    pack = make_pack(specs_from_text("frozen-lake size=3 turns=4"), 32, 0, cache)
    with server_identity():
        made = Devices.make(tmp_path, 5, RUN.replace("cycles = 2", "cycles = 1"))
        write_pack(made.server.path / "pack.jsonl", pack)
        yield made


class StoppingGrid(DevicesGrid):
    """Stops the fleet while devices first mask."""

    def __init__(self, devices: Devices) -> None:
        super().__init__(devices)
        self.server, self.asked = devices.server, list[str]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.asked.append(messages[0].metadata.message_type)
        if self.asked.count("train.masked") == 1 and self.asked[-1] == "train.masked":
            assert main(["server", "stop", str(self.server.path), "--reason", "the prompts are wrong"]) == 0
        return super().push_messages(messages)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def is_stopped(devices: Devices, number: int) -> bool:
    try:
        check_going(devices.device(number))
    except TrustError:
        return True
    return False


def test_a_run_carries_the_stop_waits_and_goes_on_to_the_same_end(
    devices: Devices, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopped, "POLL_SECONDS", 0.01)
    server, grid, problems = devices.server, StoppingGrid(devices), list[BaseException]()

    def play() -> None:
        try:
            with own_folder(devices.config):
                run(grid, devices.config, cache)
        except BaseException as error:
            problems.append(error)

    playing = Thread(target=play, daemon=True)
    playing.start()
    wait_until(lambda: bool(problems) or all(is_stopped(devices, number) for number in range(5)))
    assert not problems, problems
    wait_until(lambda: "5 of 5 devices have acknowledged it" in status(server, capsys))
    # The next phase brought it, and opened nothing; then there was the message that asks for nothing.
    assert grid.asked == ["query.keys", "query.shares", "train.masked", "query.confirm", ACTION] and playing.is_alive()
    assert main(["device", "status", str(devices.device(0).path)]) == 1
    assert "THE FLEET IS STOPPED" in (said := capsys.readouterr().out) and "(the prompts are wrong)" in said
    assert "refused: FleetStopped 1" in said
    assert main(["server", "go-on", str(server.path)]) == 0
    playing.join(SECONDS)
    assert not playing.is_alive() and not problems, problems
    assert not any(is_stopped(devices, number) for number in range(5))
    # The round that the stop has broken is made again, although the run has no patience.
    assert read_summary(server.run).cycles[1].accepted == 5
    assert "notice 2, go on" in status(server, capsys)
    assert "everything that was checked holds" in said_by(["verify", str(server.path)], capsys)


def status(server: ServerFolder, capsys: pytest.CaptureFixture[str]) -> str:
    return said_by(["server", "status", str(server.path)], capsys)


def said_by(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    main(words)
    return capsys.readouterr().out


def test_only_a_stopped_fleet_goes_on(devices: Devices, capsys: pytest.CaptureFixture[str]) -> None:
    server = str(devices.server.path)
    assert main(["server", "go-on", server]) == REFUSED
    assert "not stopped" in capsys.readouterr().err
    assert "fedoel server start" in said_by(["server", "stop", server], capsys)
    assert "0 of 5 devices have acknowledged it" in status(devices.server, capsys)
    assert main(["server", "stop", server, "--reason", "two\nlines"]) == REFUSED
    assert "one line" in capsys.readouterr().err
