"""README and docs/: their commands run, in smaller worlds, and the site is built without a warning."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from fedoel.cli.flags import settings_of
from fedoel.cli.main import main, make_parser
from fedoel.protocol.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SIMULATE = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
FAULTS = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
SMALLER = (
    "policy.backend=tactics", "cycles=2", "clients=4", "strategy.min-available-nodes=4", "games.per-client=2",
    "games.families=frozen-lake size=3 turns=4", "games.held-out=8", "games.held-out-teacher=1", "server.pack=16",
    "server.prompts-per-cycle=16", "context.max-kl=0.5",
)  # fmt: skip
# What takes a language model, hours, or an interrupt to end; other tests run these verbs.
ELSEWHERE = re.compile(
    r"simulate --scale private|privacy plan|audit|export|experiment knowledge|experiment loop|dash (?!.*--file)"
)


def blocks(text: str, language: str = "") -> list[str]:
    found = re.findall(r"^```([\w{}:-]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(text: str) -> Iterator[str]:
    """Commands of a page's code blocks, without `fedoel` and comments; continued lines are joined."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"\$? ?(?:sudo )?fedoel (.+?)\s*(?:\s#.*)?$", line):
                yield found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_and_sets_what_there_is(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        arguments = make_parser().parse_args(shlex.split(command))
        if "settings" in arguments:
            assert settings_of(arguments).keys() <= RunConfig().to_flat().keys(), command


def test_every_row_of_the_faults_names_tests_that_there_are() -> None:
    rows = [line for line in FAULTS.splitlines() if line.startswith("| ") and not line.startswith("| what was tried")]
    assert {int(found[1]) for row in rows if (found := re.match(r"\| (\d+)\. ", row))} == {*range(1, 19)}
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named or row.endswith("| by hand |"), row
        for path, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), test


def test_readme_says_what_figures_depend_on() -> None:
    [line] = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "`machines`" in line]
    for cause in ("processor", "vector instructions", "threads", "precision", "library versions", "summary.json"):
        assert cause in line


@pytest.mark.slow
def test_the_commands_of_the_page_on_simulation_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)  # of another test
    [arms], [module] = blocks(SIMULATE, "toml"), blocks(SIMULATE, "python")
    [letter] = [block for block in blocks(SIMULATE) if block.startswith("Goal: ")]
    files = {"my.toml": "seed = 1\n", "my-arms.toml": arms, "letters.txt": letter, "my_module.py": module}
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    smaller = [word for setting in SMALLER for word in ("--set", setting)]
    ran: list[str] = []
    for command in commands(SIMULATE):
        if ELSEWHERE.match(command):
            continue
        words = shlex.split(command)
        ran.append(words[0])
        words += smaller if words[0] in {"simulate", "experiment"} else []
        words += ["--seeds", "0"] if words[0] == "experiment" else []
        names = cycle(folder.name for folder in sorted(Path("runs/mine/versions").glob("*")))
        words = [word.replace("VERSION", next(names)) if "VERSION" in word else word for word in words]
        assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
    assert {"simulate", "report", "evaluate", "play", "diff", "rollback", "verify", "dash", "prompts"} <= {*ran}


@pytest.mark.slow
def test_the_site_is_built_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ExperienceStrategy" in (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")
