"""What a person sees of a run: lines in a pipe, one live view on a terminal, and nothing of libraries in either."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest

from fedoel.cli.main import GO_ON, REFUSED
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


def on_terminal(command: list[str], **environment: str) -> str:
    """Run a command whose output and errors are a terminal, and return what it showed."""
    variables = {**os.environ, "TERM": "xterm", **environment}
    terminal, inner = pty.openpty()
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=variables):
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


def without_a_reader(command: list[str], merged: bool) -> tuple[int, bytes]:
    """Run a command whose reader ends at once, and return its exit code and what it said on standard error."""
    errors = subprocess.STDOUT if merged else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        process.stdout.close()
        said = process.stderr.read() if process.stderr is not None else b""
    return process.returncode, said


@pytest.mark.parametrize("merged", [False, True])
def test_a_run_goes_on_when_nobody_reads_its_output(tmp_path: Path, merged: bool) -> None:
    assert without_a_reader(simulate(tmp_path / "run"), merged) == (0, b"")
    assert (tmp_path / "run" / "summary.json").exists() and (tmp_path / "run" / "report.html").exists()


def test_an_experiment_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    settings = "\n".join(
        f'"{key}" = {value if value.replace(".", "").isdigit() else json.dumps(value)}'
        for key, value in (setting.split("=", 1) for setting in SETTINGS)
    )
    (tmp_path / "small.toml").write_text(
        f'question = "?"\nscenario = "quick"\nseeds = [0]\n[arms.a]\n[settings]\n{settings}\n'
    )
    words = [*COMMAND[:-2], "experiment", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")]
    assert without_a_reader(words, merged=True) == (0, b"")
    assert (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("verb", GO_ON)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_live_view_ends_what_it_shows(verb: str, encoding: str, tmp_path: Path) -> None:
    """The verb prints more than any buffer holds, then leaves a file."""
    code = (
        "import argparse, pathlib, sys\n"
        "from fedoel.cli import main as command\n"
        "def run(arguments):\n"
        "    for _ in range(3): print('█' * 100_000, flush=True)\n"
        "    print('▁▂', file=sys.stderr)\n"
        "    pathlib.Path(sys.argv[1]).touch()\n"
        "    return 0\n"
        f"command.VERBS[{verb!r}].run = run\n"
        f"command.make_parser = lambda: argparse.Namespace(parse_args=lambda w: argparse.Namespace(verb={verb!r}))\n"
        "sys.exit(command.main([]))\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for target, said in (("/dev/full", True), ("| true", False)):
        left = tmp_path / target.strip("/| ").replace("/", "-")
        redirect = target if target.startswith("|") else f"> {target}"
        line = f'set -o pipefail; "$0" -c "$1" "$2" {redirect}'
        done = subprocess.run(
            ["bash", "-c", line, sys.executable, code, str(left)], capture_output=True, env=environment, check=False
        )
        assert (done.returncode, left.exists()) == (0, True), done.stderr
        assert (b"some output is lost: No space left on device" in done.stderr) == said


def test_a_terminal_without_unicode_shows_the_view_without_it(tmp_path: Path) -> None:
    shown = on_terminal(simulate(tmp_path / "run"), PYTHONIOENCODING="ascii")
    assert shown.isascii() and "finished after" in shown
    assert shown.rstrip().endswith(str(tmp_path / "run" / "summary.json"))


def test_a_full_disk_behind_the_output_is_said() -> None:
    for words in (["settings"], ["plugins"]):
        command = [*COMMAND[:-2], *words]
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == REFUSED
        assert done.stderr == "fedoel: the output cannot be written: No space left on device; make room where it goes\n"


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
