"""Formats of later releases are refused with what to do, and the release says what the package says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.formats import FORMATS, Format
from fedoel.protocol.release import FIRST, RELEASE, Release, release_in, talks

ROOT = Path(__file__).parents[2]


def test_every_format_has_a_name_of_its_own_and_reads_what_it_writes() -> None:
    assert len({item.name for item in FORMATS}) == len(FORMATS)
    assert all(1 <= item.oldest <= item.current for item in FORMATS)
    assert all(item.check(item.current, "a file") == item.current for item in FORMATS)


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (4, "x.json is of schema 4 and this fedoel reads up to 3: update fedoel"),
        (1, "x.json is of schema 1 and this fedoel reads from 2 on: run `fedoel migrate` of the release before"),
        (0, "names no schema: schema must be a whole number from 1 on, not 0"),
        ("3", "not '3'"),
        (True, "not True"),
        (None, "not null"),
    ],
)
def test_a_number_that_is_not_read_is_refused_with_what_to_do(number: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Format("x", "x.json", current=3, oldest=2).check(number, "x.json")


def test_releases_talk_if_they_are_a_minor_release_apart() -> None:
    release = Release(1, 4)
    assert [minor for minor in range(9) if release.talks_to(Release(1, minor))] == [3, 4, 5]
    assert not release.talks_to(Release(0, 4)) and not release.talks_to(Release(2, 4))
    assert release_in(release.sent) == release
    for text in ("", "7", "fedoel 1", "fedoel 1.4.1", "fedoel -1.4", "fedoel 1.4\n", b"fedoel 1.4", None):
        assert release_in(text) is None
        assert talks(text) == RELEASE.talks_to(FIRST), "a release that names itself in no way is the first"


def test_the_release_is_the_package_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version.startswith(f"{RELEASE}.")
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
