"""README and docs/: their commands are commands, and what can run without a fleet runs, in smaller worlds."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from runpy import run_path

import pytest

from fedoel.cli.flags import settings_of
from fedoel.cli.main import main, make_parser
from fedoel.protocol.config import RunConfig

from .pages import NOT_RUN, PAGES, ROOT, Snippet, commands_in_prose, snippets

SMALLER = (
    "policy.backend=tactics", "cycles=2", "strategy.min-available-nodes=4", "games.per-client=2",
    "games.held-out=8", "games.held-out-teacher=1", "server.pack=16", "server.prompts-per-cycle=16",
    "context.max-kl=0.5",
)  # fmt: skip
FAMILIES = "games.families=frozen-lake size=3 turns=4"
# What a page needs instead: a model of four layers, sums of a share of the fleet.
OTHERWISE = {
    "own-model.md": (
        "policy.backend=torch", "policy.lora-layers=2", "policy.lora-rank=2", "policy.threads=1", "warm-start.steps=2",
        "distil.steps=2", "distil.batch=4", "warm-start.anchor=0", "distil.anchor=0", "server.max-base-kl=0",
    ),
    "private-run.md": ("strategy.fraction-train=0.5",),
}  # fmt: skip
CLIENTS = {"tutorial.md": 8, "thousand-clients.md": 40, "private-run.md": 40}  # where sums are secure
OWN_FAMILIES = ("assistant.md", "own-world.md")  # pages about a family
# Blocks that a page's commands read as files, by how they begin.
FILES = {
    "question = ": "my-arms.toml", "Goal: Answer": "letters.txt", '{"schema"': "by-hand.jsonl",
    "from fedoel.protocol": "my_module.py", "from examples.lift": "my_lift.py", "clients = 1000": "thousand.toml",
    '"""A kettle': "my_world.py", '"""Count only': "loudest.py", '"""Print wins': "wins.py",
    '"""A codec of four': "habits.py",
}  # fmt: skip
MODULES = (
    "my_module",
    "my_strategy",
    "my_lift",
    "my_world",
    "loudest",
    "habits",
)  # of the working folder: every page has its own


def to_run(page: Path) -> list[Snippet]:
    return [snippet for snippet in snippets(page) if not snippet.why_not and not snippet.in_fleet]


def file_of(snippet: Snippet) -> str:
    return next((name for start, name in FILES.items() if snippet.text.startswith(start)), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_and_sets_what_there_is(page: Path) -> None:
    parser = make_parser()
    for command in (snippet.command for snippet in snippets(page)):
        if command is not None:
            arguments = parser.parse_args(command)
            if "settings" in arguments:
                assert settings_of(arguments).keys() <= RunConfig().to_flat().keys(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_prose_names_verbs_and_flags_that_there_are(page: Path) -> None:
    root = make_parser()
    for command in commands_in_prose(page):
        parser = root
        for word in shlex.split(command):
            below = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
            if below is not None and not word.startswith("--"):
                assert word in below.choices, command
                parser = below.choices[word]
            assert not word.startswith("--") or word in parser._option_string_actions, command


def test_what_is_not_run_is_there_and_tests_that_are_named_exist() -> None:
    found = [snippet for page in PAGES for snippet in snippets(page)]
    for pattern, why in NOT_RUN:
        assert any(re.match(pattern, snippet.language + snippet.text) for snippet in found), pattern
        for test in re.findall(r"tests/[\w/.]+", why):
            assert (ROOT / test).exists(), test


def test_every_extra_that_is_named_is_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page in PAGES:
        for named in re.findall(r"'?\bfedoel\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras.keys(), page


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No module of a page's working folder outlives its test: another would find it in place of its own."""
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_in_their_order(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cache: Path,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "own-model.md":
        Path("models").mkdir()
        Path("models/my-model").symlink_to(request.getfixturevalue("tiny_base"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # to which commands add this folder; for examples
    Path("my.toml").write_text("seed = 1\n", encoding="utf-8")
    for snippet in to_run(page):
        if name := file_of(snippet):
            Path(name).write_text(snippet.text, encoding="utf-8")
    printed = ""
    for snippet in to_run(page):
        command = ["simulate"] if snippet.text == "make simulate" else snippet.command
        if command is not None:
            assert main(smaller(command, page.name)) == 0, f"{snippet.text}: {capsys.readouterr().err}"
            printed += capsys.readouterr().out
        elif snippet.text.startswith("cd "):
            monkeypatch.chdir(snippet.text.removeprefix("cd "))
        elif file_of(snippet).endswith(".jsonl"):
            assert main(["prompts", "check", file_of(snippet)]) == 0
        elif file_of(snippet) == "my_lift.py":
            monkeypatch.chdir(tmp_path)
            assert main(["check-plugin", "my_lift:LIFT"]) == 0, capsys.readouterr()
        elif file_of(snippet) == "wins.py":
            run_path("wins.py")
            assert "cycle 2: " in capsys.readouterr().out
        elif snippet.text.startswith("Goal: Do what"):
            assert [line for line in snippet.text.splitlines() if line.strip() not in printed] == []
        else:
            assert file_of(snippet), f"nothing runs this snippet of {snippet.page}: {snippet.text}"


def smaller(words: list[str], page: str) -> list[str]:
    """Make a command play few small games, and name versions that there are."""
    if words[0] in {"simulate", "experiment"}:
        settings = (*SMALLER, *([] if page in OWN_FAMILIES else [FAMILIES]), *OTHERWISE.get(page, ()))
        words = [*words, *(word for setting in settings for word in ("--set", setting))]
        few = ["--clients", str(CLIENTS.get(page, 6))]
        words += ["--seeds", "0", "--set", "clients=6"] if words[0] == "experiment" else few
    if words[:2] == ["privacy", "plan"]:
        words += ["--clients", "30", "--cohort", "10"]  # the accounts of a thousand take seconds
    names = cycle(folder.name for folder in sorted(Path("runs/mine/versions").glob("*")))
    return [word.replace("VERSION", next(names)) if "VERSION" in word else word for word in words]
