"""Write a package with one plug-in that works, its entry point and its test. Needs no network."""

from __future__ import annotations

import re
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from ...protocol.errors import ConfigError
from ...protocol.plugins import POINTS

HERE = Path(__file__).parent
NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
PACKAGE = "fedoel"


def write_skeleton(kind: str, name: str, where: Path) -> Path:
    """Write the package of a plug-in, and return its folder.

    Raises
    ------
    ConfigError
        If the name is none for a package or is another module's, or its folder is there already or cannot be
        written.
    """
    folder, module = where / name, module_name(name)
    if not NAME.fullmatch(name) or iskeyword(module) or iskeyword(class_name(kind, name)):
        raise ConfigError(f"{name!r} is no name for a package: use letters and digits, and - and _ between them")
    found = find_spec(module)
    # A folder without a module has no origin; neither has the package of this project.
    if module == PACKAGE or (found is not None and found.origin is not None):
        raise ConfigError(f"there is a module {module!r} already, which {name!r} would hide: choose another name")
    if re.search(rf"\b{class_name(kind, name)}\b", _template(kind)):
        raise ConfigError(f"{class_name(kind, name)!r} is used in a {kind} already: choose another name than {name!r}")
    if folder.exists():
        raise ConfigError(f"{folder} is there already: choose another name, or another folder to work in")
    words = {
        "name": name, "module": module, "Name": class_name(kind, name), "kind": kind, "group": POINTS[kind].group,
    }  # fmt: skip
    files = {f"{module}.py": kind, f"test_{module}.py": "test", "pyproject.toml": "pyproject"}
    try:
        folder.mkdir(parents=True)
        for path, template in files.items():
            (folder / path).write_text(Template(_template(template)).substitute(words), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; work in another folder") from error
    return folder


def _template(name: str) -> str:
    return (HERE / f"{name}.txt").read_text(encoding="utf-8")


def module_name(name: str) -> str:
    """Return the module in the package of a plug-in."""
    return name.replace("-", "_").lower()


def class_name(kind: str, name: str) -> str:
    """Return the name of a plug-in in its module: games are objects, written as constants; others are classes."""
    words = module_name(name).split("_")
    return "_".join(words).upper() if kind == "game" else "".join(word.capitalize() for word in words)
