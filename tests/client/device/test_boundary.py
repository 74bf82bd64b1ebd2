"""Answers that are held back: their times tell no more of play than `play.answer-every` allows. No test waits."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedoel.cli.main import main
from fedoel.client import app
from fedoel.client.device import runtime
from fedoel.client.device.boundary import held_back
from fedoel.client.device.notice import take_notice
from fedoel.client.device.settings import LONGEST_INTERVAL, read_settings
from fedoel.client.runtime import SimulatedRuntime
from fedoel.games.player import play_episodes
from fedoel.protocol.errors import ConfigError, NotNow
from fedoel.protocol.fleet.notice import ACTION, Notice
from fedoel.protocol.messages import request_to_records, with_notice
from fedoel.protocol.signing import sign_notice
from fedoel.protocol.trials import ACTION as TRIAL
from fedoel.server.fleet import owner_key
from fedoel.strategies.experience import ExperienceStrategy
from fedoel.strategies.secure_mean import SecureMean

from .fleet_of_devices import PHASES, Devices, SecureRound

EVERY = 60
EXPERIENCE = "train.experience"
Play = Callable[..., object]


@dataclass
class Clock:
    """A clock that only sleep and play move."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@given(st.integers(1, 1800), st.integers(0, 10_000), st.sampled_from([None, NotNow, ValueError]))
def test_answers_leave_at_the_first_boundary_after_play(
    interval: int, played: int, failure: type[Exception] | None
) -> None:
    clock, left = Clock(), None
    try:
        with held_back(interval, clock, clock.sleep):
            clock.now += played
            if failure:
                raise failure
    except (NotNow, ValueError) as error:
        left = type(error)
    assert left is failure
    intervals, rest = divmod(clock.now - 1000, interval)
    assert rest == 0 and intervals >= 1
    assert 0 <= clock.now - 1000 - played < interval or (played == 0 and intervals == 1)


@given(st.floats(0.001, 1800), st.floats(0, 10_000))
def test_no_answer_leaves_before_its_boundary(interval: float, played: float) -> None:
    clock = Clock(0.0)
    with held_back(interval, clock, clock.sleep):
        clock.now += played
    assert clock.now >= max(played, interval) and clock.now - played <= interval * (1 + 1e-6) + 1e-6


def test_a_sleep_that_ends_early_is_continued() -> None:
    clock = Clock()
    with held_back(EVERY, clock, lambda seconds: clock.sleep(min(seconds, 25))):
        pass
    assert clock.slept == [25, 25, 10]


@pytest.mark.parametrize("told", [SystemExit, KeyboardInterrupt])
def test_who_is_told_to_stop_does_not_wait(told: type[BaseException]) -> None:
    clock = Clock()

    def interrupted(seconds: float) -> None:
        clock.slept.append(seconds)
        raise told

    with pytest.raises(told), held_back(EVERY, clock, clock.sleep):
        raise told
    assert not clock.slept
    with pytest.raises(told), held_back(EVERY, clock, interrupted):
        pass
    assert clock.slept == [EVERY]


def test_nothing_waits_without_the_setting_and_in_a_simulation() -> None:
    clock = Clock()
    with held_back(0, clock, clock.sleep), SimulatedRuntime().held_back():
        clock.now += 5
    assert not clock.slept


@pytest.fixture
def devices(joined_devices: Devices) -> Devices:
    """A fleet that answers everything, at boundaries; its devices have no notice, and its nodes are new."""
    for number in range(joined_devices.count):
        device = joined_devices.device(number)
        device.notice.unlink(missing_ok=True)
        device.settings.write_text(f"[play]\nanswer-every = {EVERY}\n")
    joined_devices.restart(range(joined_devices.count))
    return joined_devices


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every device."""
    clock = Clock()
    monkeypatch.setattr(runtime, "held_back", lambda interval: held_back(interval, clock, clock.sleep))
    return clock


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[float], None]:
    """Sets how many seconds all games of a request take."""
    played: Play = play_episodes

    def takes(seconds: float) -> None:
        def slowly(*arguments: object) -> object:
            clock.now += seconds
            return played(*arguments)

        monkeypatch.setattr(app, "play_episodes", slowly)

    return takes


def ask(devices: Devices, brought: Notice | None = None) -> RecordDict:
    return devices.send(0, EXPERIENCE, with_notice(request_to_records(devices.request()), brought))


@pytest.mark.parametrize(("seconds", "boundary"), [(0, 60), (1, 60), (59, 60), (60, 60), (61, 120), (600.5, 660)])
def test_the_time_of_an_experience_is_a_boundary_however_long_it_played(
    devices: Devices, clock: Clock, play: Callable[[float], None], seconds: float, boundary: float
) -> None:
    play(seconds)
    assert "experience" in ask(devices)
    assert clock.now == 1000 + boundary


@pytest.mark.parametrize("action", [EXPERIENCE, TRIAL])
def test_who_is_not_ready_answers_when_the_shortest_play_would(devices: Devices, clock: Clock, action: str) -> None:
    with devices.device(0).settings.open("a") as settings:
        settings.write("games-a-day = 1\n")
    with pytest.raises(Exception, match="NotNow"):
        devices.send(0, action, request_to_records(devices.request()))
    assert clock.now == 1060


def test_a_failure_does_not_tell_when_play_has_failed(
    devices: Devices, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> object:
        clock.now += 70
        raise ValueError

    monkeypatch.setattr(app, "play_episodes", fails)
    with pytest.raises(Exception, match="code: ValueError"):
        ask(devices)
    assert clock.now == 1120


def test_in_a_secure_sum_only_the_answer_after_play_is_held_back(
    devices: Devices, clock: Clock, play: Callable[[float], None]
) -> None:
    secure, asked = SecureRound(devices, devices.request(), range(5), 1, run="held"), 1000.0
    for phase in PHASES:
        play(100)
        secure.run_to(phase, first=phase)
        expected = 120 * 5 if phase == "masked" else 0  # one device after the other
        assert clock.now == asked + expected and not secure.refused, phase
        asked = clock.now
    secure.step(0, "masked")  # repeated: nothing is played
    assert clock.now == asked + EVERY


def test_who_is_not_ready_for_a_secure_sum_says_so_at_once(
    devices: Devices, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is ready answers at once, since no device plays in this phase.

    To hold both back would hide from nobody who is ready: the server is told, and the network sees who is asked on.
    """
    asked, send = Counter[int](), Devices.send

    def counted(all_devices: Devices, number: int, *message: Any) -> RecordDict:
        asked[number] += 1
        return send(all_devices, number, *message)

    monkeypatch.setattr(Devices, "send", counted)
    with devices.device(0).settings.open("a") as settings:
        settings.write("games-a-day = 1\n")
    secure = SecureRound(devices, devices.request(), range(5), 2).run_to("keys")
    assert secure.refused == {0: "keys: NotNow"} and clock.now == 1000
    secure.run_to(first="shares")
    assert secure.refused == {0: "keys: NotNow"} and clock.now == 1000 + 4 * EVERY
    assert asked == {0: 1} | dict.fromkeys(range(1, 5), len(PHASES))


def test_a_server_does_not_wait_for_the_first_phase_as_long_as_intervals_are() -> None:
    """Keys that were held back until a multiple would come too late, and the device would not be in the sum."""
    waits = inspect.signature(SecureMean.__init__).parameters["phase_timeout"].default
    assert waits == 120 < LONGEST_INTERVAL


def test_a_notice_is_acknowledged_at_once_and_obeyed_by_an_answer_that_waits(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, device = Clock(), devices.device(0)
    stop = sign_notice(owner_key(devices.server.fleet), Notice(1, True, 1_800_000_000, ""))

    def stopped_meanwhile(seconds: float) -> None:
        assert not list(device.working.glob("*.mark")), "a process that waits works no more: its end is no death"
        clock.sleep(seconds)
        take_notice(device, stop)

    monkeypatch.setattr(runtime, "held_back", lambda interval: held_back(interval, clock, stopped_meanwhile))
    devices.send(0, ACTION, with_notice(RecordDict(), None))
    assert not clock.slept
    with pytest.raises(Exception, match="FleetStopped"):
        ask(devices)
    assert clock.slept == [EVERY]
    with pytest.raises(Exception, match="FleetStopped"):
        ask(devices)
    assert clock.slept == [EVERY], "what is refused before anything depends on play is refused at once"


def test_the_setting_leaves_a_server_time_to_wait_and_its_owner_sees_it(
    devices: Devices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = inspect.signature(ExperienceStrategy.__init__).parameters["timeout"].default
    for seconds, allowed in ((-1, False), (waits / 2, True), (waits / 2 + 1, False), (waits, False)):
        path = tmp_path / "device.toml"
        path.write_text(f"[play]\nanswer-every = {seconds:.0f}\n")
        if allowed:
            assert read_settings(path).play.answer_every == seconds
        else:
            with pytest.raises(ConfigError, match=r"play.answer-every must be an integer between 0 and 1800"):
                read_settings(path)
    main(["device", "status", str(devices.device(0).path)])
    assert "games today; answers leave at multiples of 60 s\n" in capsys.readouterr().out
    devices.device(0).settings.write_text("")
    main(["device", "status", str(devices.device(0).path)])
    assert "games today\n" in capsys.readouterr().out
