"""What a person sees of a run: lines in a pipe, one live view on a terminal, and nothing of libraries in either."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest

from fedoel.cli.output import quiet_libraries

COMMAND = [sys.executable, "-c", "import sys; from fedoel.cli.main import main; sys.exit(main())", "simulate", "quick"]
SETTINGS = (
    "policy.backend=tactics", "strategy.name=mean", "privacy.fisher-share=0.0", "clients=2", "cycles=1",
    "games.families=frozen-lake turns=4", "games.per-client=1", "games.rehearsal=2", "games.gate=2", "games.held-out=2",
    "trial.games=1",
)  # fmt: skip
ESCAPE = "\x1b"


def simulate(out: Path, *flags: str) -> list[str]:
    return [*COMMAND, "--out", str(out), *(word for setting in SETTINGS for word in ("--set", setting)), *flags]


def on_terminal(command: list[str]) -> str:
    """Run a command whose output and errors are a terminal, and return what it showed."""
    terminal, inner = pty.openpty()
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env={**os.environ, "TERM": "xterm"}):
        os.close(inner)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # how Linux says that nobody holds the other end any more
                part = b""
            if not part:
                break
            shown += part
    os.close(terminal)
    return shown.decode()


def test_a_pipe_gets_plain_lines_of_our_own_and_no_errors(tmp_path: Path) -> None:
    done = subprocess.run(simulate(tmp_path / "run"), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert ESCAPE not in done.stdout and "INFO" not in done.stdout
    assert "quick: seed 0, engine inprocess, 2 clients, 1 cycles" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run" / "summary.json")


def test_a_pipe_gets_what_flower_says_where_it_is_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(simulate(tmp_path / "run", "--verbose"), capture_output=True, text=True, check=True)
    assert "[CYCLE 1/1]" in done.stderr and ESCAPE not in done.stderr


def test_a_terminal_shows_one_view_that_starts_with_the_run(tmp_path: Path) -> None:
    shown = on_terminal(simulate(tmp_path / "run"))
    assert "INFO" not in shown
    title, _, rest = shown.partition("fedoel quick, seed 0, 2 clients, inprocess")
    assert "fedoel" not in title and "finished after" in rest
    assert rest.rstrip().endswith(str(tmp_path / "run" / "summary.json"))


def test_a_terminal_shows_no_view_where_nothing_is_to_be_seen(tmp_path: Path) -> None:
    assert on_terminal(simulate(tmp_path / "run", "--quiet")).strip() == str(tmp_path / "run" / "summary.json")


@pytest.mark.parametrize(("verbose", "heard"), [(False, ["loud"]), (True, ["soft", "loud"])])
def test_libraries_are_heard_again_afterwards(
    verbose: bool, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    flower = logging.getLogger("flwr")
    before = (list(flower.filters), list(warnings.filters))
    flower.addHandler(caplog.handler)  # Flower's logger hands nothing on once Flower is imported
    try:
        with quiet_libraries(Namespace(verbose=verbose)), caplog.at_level(logging.DEBUG, "flwr"):
            flower.info("soft")
            flower.warning("loud")
    finally:
        flower.removeHandler(caplog.handler)
    assert list(dict.fromkeys(record.message for record in caplog.records)) == heard
    assert (flower.filters, list(warnings.filters)) == before
