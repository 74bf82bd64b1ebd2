"""The verb ``new``: write a package with one plug-in that works, its entry point and its test. Needs no network."""

from __future__ import annotations

import argparse
import re
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from ...protocol.errors import ConfigError
from ...protocol.plugins import POINTS

HERE = Path(__file__).parent
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def run_verb(arguments: argparse.Namespace) -> int:
    """Write the package into a folder of its name, and say what to do with it."""
    folder = write_skeleton(arguments.kind, arguments.name, Path.cwd())
    module, name = _module(arguments.name), _class(arguments.kind, arguments.name)
    print(f"{folder.name}/ holds a {arguments.kind} that works. Next:\n")
    print(f"  cd {folder.name}")
    print(f"  fedoel check-plugin {module}:{name}")
    print("  python -m pytest")
    print("  pip install --editable .        # then it is found by name: fedoel plugins")
    return 0


def write_skeleton(kind: str, name: str, where: Path) -> Path:
    """Write the package of a plug-in, and return its folder.

    Raises
    ------
    ConfigError
        If the name is none for a package or is another module's, or its folder is there already.
    """
    folder, module = where / name, _module(name)
    if not NAME.fullmatch(name) or iskeyword(module):
        raise ConfigError(f"{name!r} is no name for a package: use letters, digits, - and _, and begin with a letter")
    if find_spec(module) is not None:
        raise ConfigError(f"there is a module {module!r} already, which {name!r} would hide: choose another name")
    if folder.exists():
        raise ConfigError(f"{folder} is there already: choose another name, or another folder to work in")
    words = {
        "name": name, "module": module, "Name": _class(kind, name), "kind": kind, "group": POINTS[kind].group,
    }  # fmt: skip
    files = {f"{module}.py": kind, f"test_{module}.py": "test", "pyproject.toml": "pyproject"}
    folder.mkdir(parents=True)
    for path, template in files.items():
        text = (HERE / f"{template}.txt").read_text(encoding="utf-8")
        (folder / path).write_text(Template(text).substitute(words), encoding="utf-8")
    return folder


def _module(name: str) -> str:
    return name.replace("-", "_").lower()


def _class(kind: str, name: str) -> str:
    """Games are objects, and so are written as constants; others are classes."""
    words = _module(name).split("_")
    return "_".join(words).upper() if kind == "game" else "".join(word.capitalize() for word in words)
