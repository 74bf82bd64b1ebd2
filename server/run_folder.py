"""The folder of a run, which is made for one configuration and resumed with the same configuration only.

The number of cycles may grow, unless the run's noise was computed for it. That stands in the journal first, and then in
``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..protocol.config import FREE, RunConfig, settings_digest
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import FLEET_KEY, keys_folder
from ..protocol.formats import KEY, SETTINGS
from ..protocol.host.files import replace_file
from ..protocol.host.lock import one_owner
from ..protocol.records.journal import RAISED
from .journal import CONFIG, open_journal

STORED, LOCK = CONFIG, "run.lock"
# What a run leaves that was killed before or while it wrote its configuration.
NOTHING_YET = (LOCK, f"{STORED}.part")


@contextmanager
def own_folder(config: RunConfig) -> Iterator[None]:
    """Prepare the folder of a run as `prepare_folder` does, and own it for the length of a ``with`` block.

    Raises
    ------
    ConfigError
        As `prepare_folder`, and if another process owns the folder.
    """
    out = Path(config.out)
    if not (out / STORED).exists():
        _is_new(config)  # a folder that is refused gets no lock
    refusal = f"runs in {out}: wait until it ends, or stop it and use --resume, or choose another folder with --out"
    with one_owner(out / LOCK, refusal):
        prepare_folder(config)
        yield


def prepare_folder(config: RunConfig) -> None:
    """Make the folder of a run, or check that the run in it can be resumed with this configuration.

    Raises
    ------
    ConfigError
        If the folder is not empty, and the configuration does not resume the run in it or differs from that run's in
        more than a larger number of cycles.
    """
    out = Path(config.out)
    if _is_new(config):
        _store(out, {KEY: SETTINGS.current, **config.to_flat()})
    elif config.cycles > (before := stored_config(out).cycles):
        _raise_cycles(config, before)


def _store(out: Path, settings: dict[str, Any]) -> None:
    try:
        replace_file(out / STORED, json.dumps(settings, indent=1))
    except OSError as error:
        raise _unusable(out, error) from error


def _raise_cycles(config: RunConfig, before: int) -> None:
    """Write down that a run gets more cycles: in its journal, if it has the keys to sign one, and then in its settings.

    A command that is killed in between repeats the entry.
    """
    out, keys = Path(config.out), keys_folder(config)
    settings = {**json.loads((out / STORED).read_bytes()), "cycles": config.cycles}
    if (keys / FLEET_KEY).exists():
        journal = open_journal(out, keys)
        digest = settings_digest(settings)
        journal.add(RAISED, config=digest, cycles=config.cycles, before=before, cycle=journal.finished)
    _store(out, settings)


def _is_new(config: RunConfig) -> bool:
    """Whether the run's folder holds no run yet; raises as `prepare_folder` does."""
    out = Path(config.out)
    try:
        if not (out.exists() and any(path.name not in NOTHING_YET for path in out.iterdir())):
            return True
    except OSError as error:
        raise _unusable(out, error) from error
    if not config.resume:
        raise ConfigError(f"{out} is not empty: continue it with --resume, or choose another folder with --out")
    stored = stored_config(out)
    before, now = stored.to_flat(), config.to_flat()
    changed = [key for key in now if key not in FREE and before[key] != now[key]]
    if changed == ["cycles"]:
        _check_more_cycles(config, stored.cycles)
    elif changed:
        differences = ", ".join(f"{key} was {before[key]!r} and is now {now[key]!r}" for key in changed)
        raise ConfigError(f"{out} holds another run: {differences}; use the same settings, or another folder")
    return False


def _check_more_cycles(config: RunConfig, before: int) -> None:
    """Refuse fewer cycles, and more of them in a private run, whose noise was computed for the old number."""
    if config.cycles < before:
        raise ConfigError(
            f"{config.out} holds a run of {before} cycles, and cycles is now {config.cycles}: a run can get more "
            f"cycles, not fewer; set cycles to {before}, or choose another folder"
        )
    if config.privacy.epsilon:
        raise ConfigError(
            f"{config.out} holds a run whose noise was computed for cycles = {before} and epsilon "
            f"{config.privacy.epsilon:g}: more cycles would cost more; set cycles to {before}, or plan another run, "
            "with all its cycles, in another folder"
        )


def _unusable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot use {out}: {error.strerror}; choose another folder with --out")


def stored_config(run: Path) -> RunConfig:
    """Read the configuration of the run in a folder.

    Raises
    ------
    ConfigError
        If it is missing or malformed.
    """
    path = run / STORED
    try:
        settings = {**json.loads(path.read_bytes())}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the folder of a run") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a stored configuration ({error}); choose another folder") from error
    SETTINGS.check(settings.pop(KEY, 1), path)
    try:
        # The setting is missing in runs from before it existed, all of which had games.
        return RunConfig.from_flat({"server.public": "games", **settings})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a stored configuration ({error}); choose another folder") from error
