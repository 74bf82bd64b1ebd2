"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where compiled games and prepared models are kept, as FEDOEL_CACHE, which subprocesses inherit.

    FEDOEL_TEST_CACHE names a folder that outlives the session, for those who run the tests often.
    """
    kept = os.environ.get("FEDOEL_TEST_CACHE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("cache")
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDOEL_CACHE", str(folder))
        yield folder
