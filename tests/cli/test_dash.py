"""``fedoel dash``: the file, the address, and what is refused."""

from __future__ import annotations

import builtins
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import REFUSED, main


def test_the_page_is_written_to_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "page.html"
    assert main(["dash", str(run), "--file", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert "went from 21" in file.read_text(encoding="utf-8")
    assert main(["dash", str(run), "--file", str(run)]) == REFUSED
    assert "choose another --file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["nowhere"], [".", "--file", "page.html"]])
def test_a_folder_without_a_run_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dash", *words]) == REFUSED
    assert "neither the folder of a run nor that of a server" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_with_the_extra_that_has_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return load(name, *rest)

    monkeypatch.delitem(sys.modules, "fedoel.simulations.page.app", raising=False)
    monkeypatch.setattr(builtins, "__import__", lacking)
    assert main(["dash", str(run)]) == REFUSED
    said = capsys.readouterr().err
    assert (
        said == "fedoel: `fedoel dash` needs the module 'uvicorn', which is not installed: pip install 'fedoel[dash]'\n"
    )


@pytest.mark.parametrize(
    ("host", "named", "token"),
    [("127.0.0.1", "127.0.0.1", False), ("0.0.0.0", socket.gethostname(), True), ("::", socket.gethostname(), True)],
)
def test_it_serves_until_it_is_interrupted_and_loads_no_model(run: Path, host: str, named: str, token: bool) -> None:
    """A page that other machines reach asks for a token, which is in its printed address; they can open that."""
    code = (
        "import atexit, sys; from fedoel.cli.main import main; "
        "atexit.register(lambda: print(*sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))); "
        f"sys.exit(main(['dash', {str(run)!r}, '--host', {host!r}, '--port', '0']))"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline()
        assert re.fullmatch(
            rf"http://{re.escape(named)}:\d+/" + (r"\?token=[\w-]{43}" if token else "") + "\n", address
        )
        line = process.stdout.readline()
        assert ("unencrypted" in line) is token
        while "Ctrl-C" not in line:
            line = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and rest == "\n"
