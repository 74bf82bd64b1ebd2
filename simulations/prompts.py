"""The pack of prompts of a simulation whose server has no games: one that comes with fedoel, or made on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..games.families import family_of, settings_of
from ..games.make_prompts import HELD_OUT_GAMES, held_out_duplicates, pack_file, pack_for, pack_name
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.play import specs_from_text
from ..protocol.prompt_pack import FIRST_LINE, read_pack

PACKS = Path(__file__).with_name("packs")
NAMED = 5  # lines in an error


def with_pack(config: RunConfig, cache: Path) -> RunConfig:
    """Return the configuration with a pack of prompts, if its server needs one and it names none."""
    if not config.server.lacks_pack:
        return config
    packaged, made = PACKS / _name(config), (config.families_of_prompts, config.server.pack, cache)
    return _with(config, packaged if packaged.exists() else pack_for(*made, config.server.pack_play))


def check_pack(config: RunConfig, cache: Path) -> None:
    """Raise if the pack that a run names holds states of its held-out games.

    Families that do not divide their content between the splits have the same states in all of them, and are not
    compared.

    Raises
    ------
    ConfigError
        If it does, naming the lines.
    """
    if config.server.public != "prompts" or not config.server.prompts:
        return
    pack, path = read_pack(Path(config.server.prompts)), config.server.prompts
    specs = [spec for spec in specs_from_text(config.games.families) if spec.family in pack.families]
    divided = [spec for spec in specs if "split" in family_of(spec.family).rules]
    games = min(config.games.held_out, HELD_OUT_GAMES)
    if found := held_out_duplicates(pack, divided, games, cache):
        lines = ", ".join(str(index + FIRST_LINE) for index in found[:NAMED])
        raise ConfigError(
            f"{path}: {len(found)} of {len(pack.prompts)} prompts are states of held-out games, e.g. line {lines}: "
            "take them out, or make a pack with `fedoel prompts make`"
        )


def makes_pack(config: RunConfig, cache: Path) -> bool:
    """Whether a run makes a pack of prompts, and writes it into the cache."""
    if not config.server.lacks_pack:
        return False
    name = _name(config)
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


def _name(config: RunConfig) -> str:
    return pack_name(config.families_of_prompts, config.server.pack, config.server.pack_play)


def _with(config: RunConfig, path: Path) -> RunConfig:
    return replace(config, server=replace(config.server, prompts=str(path)))
