"""The page in a real browser: it draws, fits a phone, follows the run, and runs no script that is not its own."""

from __future__ import annotations

import html
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import uvicorn

from fedoel.protocol.records.summary import Summary
from fedoel.simulations.page.access import Access
from fedoel.simulations.page.app import make_app
from fedoel.simulations.page.render import render
from fedoel.simulations.page.watched import Watched

from .conftest import Save

CHROMIUM = shutil.which("chromium")
LEARNED, TEACHER, TACTICS = (0, 114, 178), (184, 79, 0), (0, 121, 90)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium: apt-get install chromium")

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open an address, and return the document as it is in the end."""

    def run(address: str, *flags: str) -> str:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [str(CHROMIUM), *FLAGS, profile, *flags, address]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout

    return run


@contextmanager
def served(watched: Watched) -> Iterator[str]:
    """Serve the page in a thread, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(watched, Access("127.0.0.1")), log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def near(path: Path, colour: tuple[int, int, int]) -> int:
    """Count the pixels of a picture that have a colour."""
    pixels = np.round(matplotlib.image.imread(path)[..., :3] * 255)
    return int((np.abs(pixels - colour).max(axis=-1) <= 2).sum())


@pytest.mark.parametrize("width", [1180, 500])
def test_curve_teacher_and_floors_are_seen(width: int, folder: Path, tmp_path: Path, browse: Browse) -> None:
    picture = tmp_path / "page.png"
    with served(Watched(folder)) as address:  # under the live page's policy, which allows no inline styles
        browse(address, f"--screenshot={picture}", f"--window-size={width},1200")
    assert near(picture, LEARNED) > 500 and near(picture, TEACHER) > 100 and near(picture, TACTICS) > 100


def test_the_page_does_not_scroll_sideways_on_a_phone(folder: Path, tmp_path: Path, browse: Browse) -> None:
    """Measured in a frame of a phone's width: a window of the browser cannot be that narrow."""
    measure = "<script>parent.document.title = document.documentElement.scrollWidth</script>"
    page = render(Watched(folder).view()).replace("</body>", f"{measure}</body>").replace("<details", "<details open")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe width=360 height=800 style="border:0" srcdoc="{html.escape(page)}"></iframe>')
    assert "<title>360</title>" in browse(frame.as_uri(), "--dump-dom")


def test_the_page_follows_the_run_and_runs_no_foreign_script(
    begun: Path, save: Save, summary: Summary, browse: Browse
) -> None:
    class Run(Watched):
        looks = 0

        def stamp(self) -> str:
            """End the run when the page has looked twice."""
            self.looks += 1
            if self.looks == 3:
                (begun / "events.jsonl").unlink()
                save(begun, summary)
            return super().stamp()

    first, *rest, last = summary.cycles
    attack = "<img src=x onerror=\"document.title='attacked'\"><script>document.title = 'attacked'</script>"
    last = replace(last, lessons=(replace(last.lessons[0], tactic=attack),))
    summary = replace(summary, cycles=(first, *rest, last))
    with served(Run(begun)) as address:
        page = browse(address, "--dump-dom", "--virtual-time-budget=30000")
    assert "to 52\N{NO-BREAK SPACE}%" in page.replace("&nbsp;", "\N{NO-BREAK SPACE}")
    assert re.search(r"<title>fedoel: standard, seed 3</title>", page) and "&lt;img src=x" in page
    assert len(re.findall("<script", page)) == 1
    assert re.search(r'<p id="connection"[^>]*hidden', page)
