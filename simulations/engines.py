"""The simulation engines, each imported when it is used."""

from __future__ import annotations

import importlib.util

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.records.events import Listener


def check(config: RunConfig) -> None:
    """Raise `ConfigError` for a configuration that no engine can run."""
    from ..games.cache import cache_folder
    from ..server.app import check as check_run

    if config.policy.backend == "llama" and importlib.util.find_spec("llama_cpp") is None:
        raise ConfigError("policy.backend 'llama' needs llama.cpp, which is not installed: make setup LLAMA=1")
    check_run(config, cache_folder(config))


def run_inprocess(config: RunConfig, listener: Listener | None = None) -> None:
    """Run all clients in this process, with their games batched through one model."""
    from .inprocess import run_inprocess as run

    run(config, listener)


def run_ray(config: RunConfig, listener: Listener | None = None) -> None:
    """Run all clients on Flower's simulation runtime."""
    from .ray_engine import run_ray as run

    run(config, listener)


def add_tactics_floor(config: RunConfig) -> None:
    """Run the baseline without a language model, and add its results to the run's summary."""
    from .floor import add_tactics_floor as add

    add(config)
