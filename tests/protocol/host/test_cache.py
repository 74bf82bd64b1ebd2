"""Where the cache is for users who have a home folder, and for those who have none."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.cache import default_cache, expanded


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user id without an account, as ``setpriv --reuid 54321`` or a container gives; returns TMPDIR."""

    def unknown(user: int | str) -> None:
        raise KeyError(f"uid not found: {user}")

    for name in ("HOME", "FEDOEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def test_without_a_home_the_cache_is_a_private_temporary_folder(homeless: Path) -> None:
    folder = default_cache()
    assert folder == default_cache() == homeless / f"fedoel-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0


def test_a_home_that_this_user_may_not_enter_is_none(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `su` without a login: HOME is the other user's."""
    exists = Path.exists

    def refused(self: Path, **options: bool) -> bool:
        if self.is_relative_to("/elsewhere/home"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return exists(self, **options)

    monkeypatch.setattr(Path, "exists", refused)
    monkeypatch.setenv("HOME", "/elsewhere/home")
    assert default_cache() == homeless / f"fedoel-{os.getuid()}"


def test_xdg_cache_home_comes_before_it_and_fedoel_cache_before_all(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "fedoel"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "fedoel"
    monkeypatch.setenv("FEDOEL_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.setenv("FEDOEL_CACHE", "~/games")  # as in a unit or a container file, which no shell reads
    assert default_cache() == tmp_path / "home" / "games"
    assert not any(homeless.iterdir())


def test_a_home_that_cannot_be_written_is_passed_over(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Service accounts have homes such as /nonexistent or /."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert default_cache().parent == homeless
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert default_cache().parent == homeless


def test_a_temporary_folder_of_somebody_else_is_refused(homeless: Path, tmp_path: Path) -> None:
    folder = homeless / f"fedoel-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"is not yours alone.*set FEDOEL_CACHE"):
        default_cache()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"is not yours alone.*set FEDOEL_CACHE"):
        default_cache()


@pytest.mark.usefixtures("homeless")
def test_a_home_that_there_is_not_is_refused_where_a_path_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^~/runs: there is no such home folder; write the whole path$"):
        expanded("~/runs")
    assert main(["simulate", "--out", "~nobody-here/runs"]) == REFUSED
    assert capsys.readouterr().err == "fedoel: ~nobody-here/runs: there is no such home folder; write the whole path\n"
    with pytest.raises(SystemExit) as refusal:
        main(["evaluate", "~/runs"])
    assert refusal.value.code == REFUSED
    assert "~/runs: there is no such home folder" in capsys.readouterr().err
