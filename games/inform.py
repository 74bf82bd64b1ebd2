"""Compile a TextWorld game by the two compilers that TextWorld brings along: Inform 7, then Inform 6.

TextWorld's own function does the same, but has Inform 7 write its index too: a hundred pages for people to browse,
a fifth of its time.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ..protocol.errors import GameError

# As TextWorld has them: errors in one style, no warnings, strict, version 8, memory rather than temporary files.
_INFORM6 = "-E2wSv8F0"


def compile_game(game: Any, story: Path) -> None:
    """Write ``story`` (``.z8``) and the ``.json`` beside it, which the interpreter tracks the game by.

    Raises
    ------
    GameError
        If a compiler refuses the game, with the end of what it says.
    """
    inform7 = importlib.import_module("textworld.generator.inform7.world2inform7")
    source = inform7.generate_inform7_source(game)
    game.save(str(story.with_suffix(".json")))
    home = Path(os.environ.get("INFORM_HOME", inform7.I7_DEFAULT_PATH)) / "share" / "inform7"
    with tempfile.TemporaryDirectory(prefix="fedoel-inform-") as temporary:
        project = Path(temporary)
        (project / "Source").mkdir()
        (project / "Source" / "story.ni").write_text(source)
        (project / "uuid.txt").touch()  # Inform 7 insists on it
        ni, inform6 = home / "Compilers" / "ni", home / "Compilers" / "inform6"
        quick = ("-noindex", "-noprogress")
        _run(ni, *quick, "--internal", home / "Internal", f"--format={story.suffix}", "--project", project)
        _run(inform6, _INFORM6, project / "Build" / "auto.inf", story)


def _run(*command: str | Path) -> None:
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if said.returncode:
        text = said.stdout.decode(errors="replace").strip()[-400:]
        raise GameError(f"{Path(command[0]).name} ended with {said.returncode}: {text}")
