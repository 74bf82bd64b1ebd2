"""Baselines by name, with options of their own: ``fedavg-lora strategy=FedAdam``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, cast

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.options import options_of, read_options
from ...protocol.records.events import Listener


class Baseline(Protocol):
    """Another way from a run's configuration to the same folder: versions, events and ``summary.json``."""

    NAME: ClassVar[str]

    def check(self, config: RunConfig) -> RunConfig:
        """Return the run as this baseline makes it.

        Raises
        ------
        ConfigError
            If it cannot, before any work starts.
        """
        ...

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run every cycle of a run that `check` returned, or what is missing of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Federated:
    """The run itself, beside which the others stand."""

    NAME: ClassVar[str] = "federated"

    def check(self, config: RunConfig) -> RunConfig:
        """Have nothing to change."""
        from ..engines import check

        check(config)
        return config

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the fleet in this process."""
        from ..engines import run_inprocess

        run_inprocess(config, listener)


BASELINES: Mapping[str, str] = MappingProxyType(
    {
        Federated.NAME: "baseline:Federated",
        "pooled": "pooled:Pooled",
        "local-only": "local_only:LocalOnly",
        "fedavg-lora": "fedavg_lora:FedAvgLora",
    }
)


def load_baseline(text: str) -> Baseline:
    """Return a baseline with its options.

    Parameters
    ----------
    text
        Its name, and ``name=value`` words behind it.

    Raises
    ------
    ConfigError
        If there is none of this name, or it has no such option.
    """
    name, _, options = text.strip().partition(" ")
    if name not in BASELINES:
        raise ConfigError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
    module, _, kind = BASELINES[name].partition(":")
    found = getattr(import_module(f".{module}", __package__), kind)
    return cast(Baseline, found(**read_options(options, options_of(found, object))))


def in_the_open(config: RunConfig, baseline: Baseline) -> RunConfig:
    """Return the same run under a name that says how it was made, options included.

    Raises
    ------
    ConfigError
        If it promises a privacy that this baseline does not give.
    """
    name = baseline.NAME
    if config.privacy.mechanism != "none" or config.strategy.name != "mean":
        raise ConfigError(
            f"the baseline {name!r} is not private, and runs under no promise that it is: it needs strategy.name "
            f"'mean' and privacy.mechanism 'none', not {config.strategy.name!r} and {config.privacy.mechanism!r}"
        )
    if config.strategy.exchanges > 1 or config.strategy.fraction_train < 1:
        raise ConfigError(f"the baseline {name!r} needs strategy.exchanges 1 and strategy.fraction-train 1")
    given = {option.name: getattr(baseline, option.name) for option in fields(cast(Any, baseline))}
    return replace(config, name=" ".join([f"{config.name}, {name}", *(f"{key}={given[key]}" for key in given)]))
