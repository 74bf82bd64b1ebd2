"""Compile a TextWorld game with the two compilers that TextWorld bundles: Inform 7, then Inform 6.

TextWorld's own function does the same, but also has Inform 7 write its HTML index of about a hundred pages, which takes
a fifth of the compile time.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ...protocol.errors import GameError

# TextWorld's own options: one error style, no warnings, strict, Z-machine version 8, no temporary files.
_INFORM6_OPTIONS = "-E2wSv8F0"


def compile_game(game: Any, story: Path) -> None:
    """Write the story file (``.z8``) and, beside it, the ``.json`` that TextWorld reads the game's logic from.

    Raises
    ------
    GameError
        If a compiler refuses the game; the message ends with the compiler's last output.
    """
    inform7 = importlib.import_module("textworld.generator.inform7.world2inform7")
    source = inform7.generate_inform7_source(game)
    game.save(str(story.with_suffix(".json")))
    home = Path(os.environ.get("INFORM_HOME", inform7.I7_DEFAULT_PATH)) / "share" / "inform7"
    with tempfile.TemporaryDirectory(prefix="fedoel-inform-") as temporary:
        project = Path(temporary)
        (project / "Source").mkdir()
        (project / "Source" / "story.ni").write_text(source)
        (project / "uuid.txt").touch()  # Inform 7 requires this file
        ni, inform6 = home / "Compilers" / "ni", home / "Compilers" / "inform6"
        options = ("-noindex", "-noprogress")
        _run(ni, *options, "--internal", home / "Internal", f"--format={story.suffix}", "--project", project)
        _run(inform6, _INFORM6_OPTIONS, project / "Build" / "auto.inf", story)


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        output = result.stdout.decode(errors="replace").strip()[-400:]
        raise GameError(f"{Path(command[0]).name} ended with {result.returncode}: {output}")
