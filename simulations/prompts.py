"""The pack of prompts of a simulation whose server has no games, made on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..games.make_prompts import pack_for
from ..protocol.config import RunConfig


def with_pack(config: RunConfig, cache: Path) -> RunConfig:
    """Return the configuration with a pack of prompts, if its server needs one and it names none."""
    server = config.server
    if server.public != "prompts" or server.prompts:
        return config
    path = pack_for(server.prompt_families or config.games.families, server.pack, cache)
    return replace(config, server=replace(server, prompts=str(path)))
