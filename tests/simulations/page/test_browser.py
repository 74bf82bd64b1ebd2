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
LEARNED, TEACHER, TACTICS, MUTED = (0, 114, 178), (184, 79, 0), (0, 121, 90), (90, 102, 114)
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


MEASURE = """<script>
const boxes = shape => [...document.querySelectorAll(`#answers ${shape}, #replay ${shape}`)]
  .map(element => element.getBoundingClientRect());
const cards = boxes(".card"), bars = boxes("rect.share").filter(bar => bar.width > 10 && bar.height > 5);
const wide = document.documentElement.scrollWidth;
const inside = cards.every(card => card.left >= 0 && card.right <= wide && card.height > 100 && card.width > 250);
const columns = new Set(cards.map(card => card.left)).size;
const cut = [...document.querySelectorAll(".card :not(caption)")]
  .filter(element => element.clientWidth && element.scrollWidth > element.clientWidth + 1);
const lengths = new Set(boxes("rect.whole").map(bar => Math.round(bar.width)));
parent.document.title = [wide, cards.length, inside, columns, bars.length > 20, cut.length, lengths.size];
</script>"""


@pytest.mark.parametrize(("width", "columns"), [(1180, 2), (360, 1)])
def test_answers_and_a_replayed_game_fit_a_wide_window_and_a_phone(
    width: int, columns: int, kept: Path, tmp_path: Path, browse: Browse
) -> None:
    page = render(Watched(kept).view()).replace("</body>", f"{MEASURE}</body>")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe width={width} height=800 style="border:0" srcdoc="{html.escape(page)}"></iframe>')
    seen = browse(frame.as_uri(), "--dump-dom")
    assert f"<title>{width},10,true,{columns},true,0,1</title>" in seen, re.findall("<title>.*?</title>", seen)


def test_bars_have_their_widths_and_colours_on_the_live_page(kept: Path, tmp_path: Path, browse: Browse) -> None:
    """Its policy allows no inline styles, so that a bar that was styled inline would be empty there."""
    pictures = [tmp_path / f"{name}.png" for name in ("with", "without")]
    for picture in pictures:
        with served(Watched(kept)) as address:
            browse(address, f"--screenshot={picture}", "--window-size=1180,5000")
        shutil.rmtree(kept / "checkpoints", ignore_errors=True)
    coloured = [near(picture, LEARNED) for picture in pictures]
    assert coloured[0] > coloured[1] + 5_000 and near(pictures[0], MUTED) > near(pictures[1], MUTED) + 5_000


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
