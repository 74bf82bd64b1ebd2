"""The pack of prompts of a simulation whose server has no games: one that comes with fedoel, or made on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..games.families import settings_of
from ..games.make_prompts import pack_file, pack_for, pack_name
from ..protocol.config import RunConfig
from ..protocol.play import specs_from_text

PACKS = Path(__file__).with_name("packs")


def with_pack(config: RunConfig, cache: Path) -> RunConfig:
    """Return the configuration with a pack of prompts, if its server needs one and it names none."""
    if not config.server.lacks_pack:
        return config
    packaged = PACKS / pack_name(config.families_of_prompts, config.server.pack)
    path = packaged if packaged.exists() else pack_for(config.families_of_prompts, config.server.pack, cache)
    return _with(config, path)


def makes_pack(config: RunConfig, cache: Path) -> bool:
    """Whether a run makes a pack of prompts, and writes it into the cache."""
    if not config.server.lacks_pack:
        return False
    name = pack_name(config.families_of_prompts, config.server.pack)
    return not ((PACKS / name).exists() or pack_file(cache, name).exists())


def with_any_pack(config: RunConfig) -> RunConfig:
    """Return the configuration with a pack that is there, whatever it holds, to check the rest before any work.

    Raises
    ------
    ConfigError
        If the pack that the run would make is of families that there are not.
    """
    if not config.server.lacks_pack:
        return config
    for spec in specs_from_text(config.families_of_prompts):
        settings_of(spec)
    return _with(config, next(PACKS.glob("*.jsonl")))


def _with(config: RunConfig, path: Path) -> RunConfig:
    return replace(config, server=replace(config.server, prompts=str(path)))
