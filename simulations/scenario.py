"""Scenario files: TOML tables of settings, built in by name or given by path, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..protocol.config import RunConfig, Scalar
from ..protocol.errors import ConfigError
from ..protocol.host.cache import expanded
from ..protocol.settings import is_plain, read_toml, shown
from ..server.run_folder import STORED, stored_config

BUILT_IN = ("quick", "words", "standard", "full", "private")
FOLDER = Path(__file__).parent / "scenarios"
LONGEST_NAME = 60  # characters; a folder's name has 255 bytes


def load_scenario(scenario: str = "quick", overrides: Mapping[str, Scalar] | None = None) -> RunConfig:
    """Read a scenario and make its paths absolute.

    A pack of prompts and a file of red lines are relative to the file that names them, every other path to the working
    folder.

    Parameters
    ----------
    scenario
        Path of a TOML file, or the name of a built-in scenario.
    overrides
        Flat settings that win over the file, e.g. ``{"clients": 20, "games.per-client": 4}``.

    Raises
    ------
    ConfigError
        If there is no such scenario, it is not TOML, or it holds an unknown or unusable setting.
    """
    path = _find(scenario)
    settings = {"name": path.stem, **_beside(path, read_toml(path))}
    for key, value in (overrides or {}).items():
        _override(settings, key, value)
    try:
        return _with_absolute_paths(RunConfig.from_nested(settings))
    except ConfigError as error:
        if _is_of_the_file(error, path):
            raise ConfigError(f"{path}: {error}") from error
        raise


def _is_of_the_file(error: ConfigError, path: Path) -> bool:
    """Whether a scenario's file is to blame for an error, and not what was set on top of it."""
    try:
        _with_absolute_paths(RunConfig.from_nested({"name": path.stem, **_beside(path, read_toml(path))}))
    except ConfigError as own:
        return str(own) == str(error)
    return False


def scenario_of(adapter: Path, scenario: str = "", overrides: Mapping[str, Scalar] | None = None) -> RunConfig:
    """Return the scenario that is named, or else the one of the run that made the adapter, or else ``quick``."""
    run = adapter.absolute().parent.parent
    if not scenario and (run / STORED).is_file():
        return RunConfig.from_flat({**stored_config(run).to_flat(), **(overrides or {})})
    return load_scenario(scenario or "quick", overrides)


def _find(scenario: str) -> Path:
    path = FOLDER / f"{scenario}.toml" if scenario in BUILT_IN else Path(scenario)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(
            f"the scenario {scenario!r} is a pipe or a device, which can be read once only, and not by --resume: write "
            "it into a file, and give its path"
        )
    if not path.is_file():
        raise ConfigError(
            f"no scenario {scenario!r}: give the path of a TOML file, or a built-in name: {', '.join(BUILT_IN)}"
        )
    return path


def _override(settings: dict[str, Any], key: str, value: Scalar) -> None:
    *tables, name = key.split(".")
    for table in tables:
        settings = settings.setdefault(table, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"cannot set {key}: {table} is a setting and not a table")
    settings[name] = value


def _beside(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a file's settings; prompts and red lines that they name are found from the file's folder."""
    server = settings.get("server")
    if not isinstance(server, dict):
        return settings
    named = {name: server.get(name) for name in ("prompts", "red-lines")}
    beside = {
        name: str(path.absolute().parent / expanded(file))
        for name, file in named.items()
        if isinstance(file, str) and file
    }
    return {**settings, "server": {**server, **beside}}


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Make paths independent of the working folder: the engines run clients elsewhere."""
    if not config.out and not (0 < len(config.name) <= LONGEST_NAME and config.name == Path(config.name).name):
        raise ConfigError(f"name must be one of a folder, of 1 to {LONGEST_NAME} characters, not {shown(config.name)}")
    out = config.out or f"runs/{config.name}-{config.seed}"
    return replace(
        config,
        out=_absolute(out),
        cache=_absolute(config.cache),
        policy=replace(config.policy, base=_absolute(config.policy.base)),
        server=replace(
            config.server, prompts=_absolute(config.server.prompts), red_lines=_absolute(config.server.red_lines)
        ),
    )


def _absolute(path: str) -> str:
    absolute = str(expanded(path).absolute()) if path else ""
    if not is_plain(absolute):
        raise ConfigError(f"{shown(absolute)} is not in UTF-8: work in another folder")
    return absolute
