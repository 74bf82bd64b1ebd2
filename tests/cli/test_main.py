"""The command line: exit codes, what it refuses, and what it loads."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedoel.cli.main import REFUSED, VERBS, main


def test_importing_the_command_loads_nothing_heavy() -> None:
    """Not even for ``--help``, which therefore answers at once."""
    code = "import sys; from fedoel.cli.main import make_parser; make_parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "flwr", "torch", "rich", "matplotlib", "transformers"} & set(loaded)


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "nowhere.toml"],
        ["simulate", "--set", "nonsense"],
        ["simulate", "--clients", "0"],
        ["evaluate", "nowhere"],
        ["report", "nowhere"],
        ["play", "--adapter", "nowhere"],
        ["play", "--run", "nowhere"],
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == REFUSED
    assert capsys.readouterr().err.startswith("fedoel: ")


@pytest.mark.parametrize(
    "words",
    [
        "simulate --clients {0}", "simulate --cycles {0}", "simulate --processes {0}", "evaluate x --games {0}",
        "prompts make x --out y --count {0}", "prune x --keep {0}", "dash x --port {0}",
        "privacy --epsilon 1 --clients {0} --cohort 9 --cycles 9",
    ],
)  # fmt: skip
@pytest.mark.parametrize("number", ["1e8", "0x10", "1.0", "ten", "9" * 5000])
def test_a_number_that_is_not_in_digits_is_refused_with_one_that_is(
    words: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.format(number).split())
    assert ended.value.code == REFUSED
    last = capsys.readouterr().err.splitlines()[-1]
    assert f": must be a whole number in digits, such as 100, not '{number[:9]}" in last and len(last) < 300


@pytest.mark.parametrize(
    "words",
    ["simulate {0}", "simulate --out {0}", "simulate --resume --out {0}", "report {0}", "versions {0}", "dash {0}",
     "prune {0}", "experiment {0}", "server status {0}", "device join {0} --name one", "new strategy {0}"],
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.format("n" * 300).split()) == REFUSED
    said = capsys.readouterr().err
    assert said.startswith("fedoel: ") and "File name too long; " in said


def test_a_link_to_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for words in ("simulate --out {0}", "simulate --out {0}/run", "report {0}", "server init {0} --host h"):
        assert main(words.format(tmp_path / "loop").split()) == REFUSED
        assert capsys.readouterr().err.startswith("fedoel: ")


def test_an_argument_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """Reports, settings and printed commands could not name such a path."""
    command = [sys.executable, "-c", "import sys; from fedoel.cli.main import main; sys.exit(main())"]
    done = subprocess.run([*command, "server", "init", bytes(tmp_path) + b"/\xff", "--host", "h"], capture_output=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (REFUSED, [])
    assert (
        done.stderr.startswith(b"fedoel: ") and b"is not in UTF-8: give the file or folder another name" in done.stderr
    )


def test_a_working_folder_that_was_removed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (["simulate"], ["versions", "."], ["device", "status", "here"]):
        assert main(words) == REFUSED
        assert "the working folder has been removed: go to another one" in capsys.readouterr().err


def test_a_backend_of_matplotlib_that_is_not_there_is_not_loaded(run: Path) -> None:
    """A notebook hands its own down to the commands that it starts; a build, the date of its sources."""
    code = f"import sys; from fedoel.cli.main import main; sys.exit(main(['report', {str(run)!r}]))"
    environment = {**os.environ, "MPLBACKEND": "module://nowhere", "MPLCONFIGDIR": "/dev/null"}
    environment["SOURCE_DATE_EPOCH"] = "today"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["events.jsonl", "summary.json", "report.html"])
def test_a_folder_in_the_place_of_a_run_s_file_is_said(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    assert main(["report", str(run)]) == REFUSED
    assert re.search(rf"fedoel: .*{name}.* Is a directory; (give|move)", capsys.readouterr().err)


def test_report_is_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_one_module_that_says_what_it_does_in_one_sentence(name: str) -> None:
    verb = VERBS[name]
    assert vars(verb)["__name__"] == f"fedoel.cli.{name.replace('-', '_')}"
    assert verb.HELP and not verb.HELP.endswith(".") and ". " not in verb.HELP


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["check-plugin", "nowhere:LAKE"], "plug-in 'nowhere:LAKE' cannot be imported: No module named 'nowhere'"),
        (["simulate", "--set", "games.families=nowhere:LAKE turns=3"], "game family 'nowhere:LAKE' cannot be imported"),
        (["simulate", "--set", "games.families=frozen-lak turns=3"], "unknown game family 'frozen-lak'"),
        (["play", "--game", "frozen-lak turns=3"], "unknown game family 'frozen-lak'"),
        (["play", "--game", "frozen-lake colour=3 turns=3"], "unknown setting 'colour'"),
    ],
)
def test_an_error_about_a_game_names_the_game(
    words: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == REFUSED
    error = capsys.readouterr().err
    assert problem in error and "strategy" not in error and error.count("\n") == 1


def test_a_plugin_that_fails_while_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_lakes.py").write_text("LAKE = size")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check-plugin", "broken_lakes:LAKE"]) == REFUSED
    assert "cannot be imported: NameError: name 'size' is not defined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [("tactics", "is the name of a codec and of a policy"), ("tactix", "is no plug-in that is built in")],
)
def test_a_name_that_is_not_one_plugin_is_refused(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-plugin", name]) == REFUSED
    error = capsys.readouterr().err
    assert error.startswith(f"fedoel: {name!r} {says}") and "write module:Name" in error


@pytest.mark.parametrize("trials", ["0", "-1", "99"])
def test_too_few_trials_of_attacks_are_refused(trials: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--trials", trials, "--out", str(tmp_path / "card")]) == REFUSED
    assert f"--trials must be at least 100, not {trials}" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_plugin_cannot_be_written_into_a_read_only_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated, because root can write into such a folder."""

    def read_only(folder: Path, *arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert main(["new", "strategy", "mine"]) == REFUSED
    expected = f"fedoel: {tmp_path / 'mine'} cannot be written: Permission denied; work in another folder\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("field", "lacks"), [("config", "config.clients"), ("cycles", "cycles")])
def test_a_summary_that_lacks_what_views_need_is_refused(
    field: str, lacks: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = json.loads((run / "summary.json").read_bytes())
    (run / "events.jsonl").unlink()  # which has the cycles that the summary lacks
    (run / "summary.json").write_text(json.dumps({**table, field: type(table[field])()}))
    assert main(["report", str(run)]) == REFUSED
    assert f"summary.json lacks {lacks}; " in capsys.readouterr().err


def test_a_run_without_a_version_plays_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = json.loads((run / "summary.json").read_bytes())
    (run / "events.jsonl").unlink()  # which has the cycles that the summary lacks
    (run / "config.json").write_text(json.dumps(table["config"]))
    (run / "summary.json").write_text(json.dumps({**table, "cycles": []}))
    assert main(["play", "--run", str(run)]) == REFUSED
    assert f"the run in {run} has no version yet" in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(arguments: object) -> int:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr(VERBS["plugins"], "run", run)
    assert main(["plugins"]) == REFUSED
    assert "needs the module 'matplotlib'" in capsys.readouterr().err


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(arguments: object) -> int:
        raise MemoryError("Unable to allocate 745. GiB")

    monkeypatch.setattr(VERBS["plugins"], "run", run)
    assert main(["plugins"]) == REFUSED
    assert capsys.readouterr().err.startswith("fedoel: there is not enough memory (Unable to allocate 745. GiB): take")


@pytest.mark.parametrize(("error", "says"), [
    (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "'/root/x': Permission denied; choose"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "any more processes or threads: end some"),
    (RuntimeError("can't start new thread"), "any more processes or threads: end some"),
])  # fmt: skip
def test_what_this_user_may_not_do_is_said(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: object) -> int:
        raise error

    monkeypatch.setattr(VERBS["plugins"], "run", run)
    assert main(["plugins"]) == REFUSED and says in capsys.readouterr().err


def test_a_reader_that_stops_is_no_error() -> None:
    code = "import sys; from fedoel.cli.main import main; sys.exit(main(['plugins']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_settings_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0 and "| `distil.steps` |" in capsys.readouterr().out
    assert main(["settings", "games.per-client"]) == 0
    assert capsys.readouterr().out.startswith("games.per-client (an integer of at least 1; 6 by default): ")
    assert main(["settings", "games.per-clint"]) == REFUSED
    assert "the closest is games.per-client" in capsys.readouterr().err


@pytest.mark.parametrize("redirect", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams_are_no_error(redirect: str) -> None:
    code = "import sys; from fedoel.cli.main import main; sys.exit(main(['settings']))"
    done = subprocess.run(["sh", "-c", f'"$0" -c "$1" {redirect}', sys.executable, code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_characters_that_an_encoding_lacks_are_replaced() -> None:
    code = "import sys; from fedoel.cli.main import use_streams; use_streams(); print('a \\u00b7 b')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.strip() == b"a ? b"


def test_a_plugin_that_exits_while_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leaver.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["simulate", "--set", "strategy.name=leaver:It", "--out", str(tmp_path / "run")]) == REFUSED
    assert "cannot be imported: SystemExit: 3" in capsys.readouterr().err


def test_a_plugin_that_exits_while_a_run_goes_on_does_not_end_it_as_if_it_were_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quitter.py").write_text(
        "import sys\nfrom fedoel.strategies.mean import Mean\nclass It(Mean):\n    def check(self, spec): sys.exit(0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["--set", "strategy.name=quitter:It", "--set", "policy.backend=tactics", "--out", str(tmp_path / "run")]
    assert main(["simulate", *settings]) == REFUSED
    assert "ended the program (SystemExit: 0)" in capsys.readouterr().err
