"""The documentation site is built without a warning, and links to elsewhere are whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .pages import PAGES, ROOT


@pytest.mark.slow
def test_the_site_is_built_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ExperienceStrategy" in (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")


def test_links_to_elsewhere_are_whole_addresses() -> None:
    """Whether they are there is asked by `make links`, which needs a network."""
    found = set[str]()
    for page in {*PAGES, *ROOT.glob("*.md")}:
        found |= set(re.findall(r"\]\((\w+:[^)]*)\)", page.read_text(encoding="utf-8")))
    assert found
    for address in found:
        parts = urlsplit(address)
        assert parts.scheme == "https" and re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.hostname or ""), address
        assert re.fullmatch(r"[\w./~%#?=&+-]*", address.removeprefix("https://")), address
