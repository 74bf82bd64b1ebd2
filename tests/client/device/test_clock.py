"""The owner's hours and quota while clocks are changed: a device plays neither twice nor never."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedoel.client.device.idle import count_games, games_today, is_in, look

SPRING, AUTUMN = datetime(2026, 3, 29), datetime(2026, 10, 25)  # in Berlin: 2:00 becomes 3:00, and 3:00 becomes 2:00


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def minutes_in(hours: str, day: datetime) -> list[int]:
    """Return lengths in minutes of the windows that open from noon before a day until noon of it, as time passes."""
    begin = (day - timedelta(hours=12)).timestamp()
    end = (day + timedelta(hours=12)).timestamp()
    inside = [is_in(hours, datetime.fromtimestamp(at)) for at in range(int(begin), int(end), 60)]
    lengths, before = list[int](), False
    for here in inside:
        lengths = [*lengths, 0] if here and not before else lengths
        if here:
            lengths[-1] += 1
        before = here
    return lengths


@pytest.mark.parametrize(
    ("hours", "spring", "autumn"),
    [
        ("02:15-02:45", 30, 30),  # in the hour that is left out, or comes twice
        ("02:00-03:00", 60, 120),
        ("01:00-02:30", 90, 90),
        ("02:30-04:00", 30, 150),
        ("02:30-03:30", 60, 120),
        ("22:00-07:00", 480, 600),
        ("03:00-04:00", 60, 60),
    ],
)
def test_a_window_opens_once_on_the_days_on_which_clocks_are_changed(
    berlin: None, hours: str, spring: int, autumn: int
) -> None:
    assert minutes_in(hours, SPRING) == [spring]
    assert minutes_in(hours, AUTUMN) == [autumn]


def test_a_quota_outlives_a_clock_that_is_set_back(tmp_path: Path) -> None:
    count = tmp_path / "played"
    count_games(count, "2026-03-02", 5)
    assert games_today(count, "2026-03-01") == 5, "set back a day"
    count_games(count, "2026-03-01", 2)
    assert games_today(count, "2026-03-02") == 7, "and forth again"
    assert games_today(count, "2026-03-03") == 0, "a new day"


def test_a_clock_that_was_wrong_by_years_does_not_stop_a_device_for_years(tmp_path: Path) -> None:
    count = tmp_path / "played"
    count_games(count, "2099-01-01", 5)
    assert games_today(count, "2026-03-01") == 0
    count_games(count, "2026-03-01", 1)
    assert games_today(count, "2026-03-01") == 1


def test_another_time_zone_is_noticed_by_a_process_that_runs(berlin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here = look().clock
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert look().clock - here > timedelta(hours=6)
