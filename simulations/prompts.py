"""The pack of prompts of a simulation whose server has no games: one that comes with fedoel, or made on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..games.make_prompts import pack_for, pack_name
from ..protocol.config import RunConfig

PACKS = Path(__file__).with_name("packs")


def with_pack(config: RunConfig, cache: Path) -> RunConfig:
    """Return the configuration with a pack of prompts, if its server needs one and it names none."""
    server = config.server
    if server.public != "prompts" or server.prompts:
        return config
    families = server.prompt_families or config.games.families
    packaged = PACKS / pack_name(families, server.pack)
    path = packaged if packaged.exists() else pack_for(families, server.pack, cache)
    return replace(config, server=replace(server, prompts=str(path)))
