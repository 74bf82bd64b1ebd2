"""What a shell completes, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedoel.cli.completion import SHELLS
from fedoel.cli.main import REFUSED, main

# What readline does for a command line whose last word is unfinished.
ASK = """\
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
$(complete -p fedoel | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab", reason="shtab is not installed: pip install 'fedoel[completion]'")
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("fedoel sim", ["simulate"]),
        ("fedoel device jo", ["join"]),
        ("fedoel server log ver", ["verify"]),
        ("fedoel simulate --scale pri", ["private"]),
        ("fedoel simulate --resu", ["--resume"]),
    ],
)
def test_bash_completes(line: str, completed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fedoel"
    file.write_text(script("bash", capsys))
    asked = ["bash", "--norc", "-c", ASK, "bash", str(file), *line.split()]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_can_be_read_by_its_shell(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fedoel"
    file.write_text(script(shell, capsys))
    assert "approve" in file.read_text()
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", file], check=True)


def test_without_the_library_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == REFUSED
    assert "pip install 'fedoel[completion]'" in capsys.readouterr().err
