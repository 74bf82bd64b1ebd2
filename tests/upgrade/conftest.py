"""Folders and messages that the code of a release before has made: see `make.py`."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

LAST, DAY_BEFORE = "4b97dc7", "e406514"  # commits: the last one of release 0.1, and one from before the fleet's log


def unpacked(commit: str, folder: Path) -> Path:
    """Unpack what a commit's code has made."""
    with tarfile.open(Path(__file__).parent / f"{commit}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    for private in (path for path in folder.rglob("*") if path.is_dir()):
        private.chmod(0o700)
    return folder


@pytest.fixture(params=[LAST, DAY_BEFORE])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folders of one of these commits."""
    return unpacked(request.param, tmp_path)
