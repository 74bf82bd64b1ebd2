from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fedoel.protocol.errors import FedoelError
from fedoel.protocol.host.files import write_whole


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.npz"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [found.name for found in path.parent.iterdir()] == ["kept.npz"]


def test_what_was_there_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.npz"
    write_whole(path, b"one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FedoelError, match=r"kept\.npz cannot be written: No space left.*--resume"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
