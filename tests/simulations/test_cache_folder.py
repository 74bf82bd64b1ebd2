"""A cache folder that is read-only, without locks, damaged or of an earlier release."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.games.make_prompts import pack_for
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import FedoelError
from fedoel.server.run_folder import own_folder
from fedoel.server.summary import read_summary
from fedoel.simulations.inprocess import run_inprocess

from ..full_disk import ReadOnlyDisk, full_disk

FAMILIES, PROMPTS = "frozen-lake size=3 turns=5", 16


def run(cache: Path, out: Path) -> None:
    config = RunConfig.from_flat({
        "clients": 3, "cycles": 1, "games.families": FAMILIES, "games.per-client": 2, "games.held-out": 2,
        "policy.backend": "tactics", "server.pack": PROMPTS, "server.prompts-per-cycle": PROMPTS,
        "cache": str(cache), "out": str(out),
    })  # fmt: skip
    with own_folder(config):
        run_inprocess(config)


def test_a_read_only_cache_is_used_if_it_has_what_a_run_needs_and_refused_with_a_remedy_otherwise(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with full_disk(cache, ReadOnlyDisk):
        with pytest.raises(FedoelError, match=r"Read-only file system; set FEDOEL_CACHE to a folder that only you"):
            run(cache, tmp_path / "empty")
        assert not list(cache.iterdir())
    pack_for(FAMILIES, PROMPTS, cache)
    with full_disk(cache, ReadOnlyDisk):
        run(cache, tmp_path / "filled")
    assert len(read_summary(tmp_path / "filled").cycles) == 2


def test_a_cache_that_cannot_be_written_is_refused_before_there_is_a_run_if_it_lacks_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out, access = tmp_path / "cache", tmp_path / "run", os.access
    cache.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != cache)  # root may write
    words = ["simulate", "--quiet", "--out", str(out), "--cycles", "1", "--clients", "6"]
    settings = {
        "cache": cache, "games.families": FAMILIES, "policy.backend": "tactics", "server.pack": PROMPTS,
        "server.prompts-per-cycle": PROMPTS, "games.held-out": 2,
    }  # fmt: skip
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main(words) == REFUSED
    assert f"cache: {cache} cannot be written" in capsys.readouterr().err and not out.exists()
    pack_for(FAMILIES, PROMPTS, cache)
    assert main(words) == 0


def test_a_cache_needs_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's file system: only the folders of runs, servers and devices do."""
    lock, cache = fcntl.flock, tmp_path / "cache"

    def flock(file: Any, operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(cache):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    run(cache, tmp_path / "run")
    assert list(cache.rglob("*.jsonl"))
    with pytest.raises(FedoelError, match=r"No locks available; choose a folder on a file system that has locks"):
        run(cache, cache / "run")


@pytest.mark.parametrize("damage", ["cut", "cut behind a line", "empty", "zeros", "earlier release", "no digest"])
def test_a_damaged_pack_of_prompts_is_made_again(damage: str, tmp_path: Path) -> None:
    path = pack_for(FAMILIES, PROMPTS, tmp_path)
    whole, digest = path.read_bytes(), path.with_suffix(".digest").read_bytes()
    if damage == "no digest":
        path.with_suffix(".digest").unlink()
    else:
        path.write_bytes({
            "cut": whole[: len(whole) // 2], "cut behind a line": whole[: whole.rindex(b"\n", 0, -1) + 1], "empty": b"",
            "zeros": bytes(len(whole)), "earlier release": whole.replace(b'"schema": 1', b'"schema": 0', 1),
        }[damage])  # fmt: skip
    assert pack_for(FAMILIES, PROMPTS, tmp_path) == path
    assert (path.read_bytes(), path.with_suffix(".digest").read_bytes()) == (whole, digest)
