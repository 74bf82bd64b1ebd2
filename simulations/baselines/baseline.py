"""Baselines by name, each with options: ``fedavg-lora strategy=FedAdam``."""

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
from ..inprocess import check, run_inprocess


class Baseline(Protocol):
    """A training method that makes the same run folder from a configuration: versions, events, ``summary.json``."""

    NAME: ClassVar[str]

    def check(self, config: RunConfig) -> RunConfig:
        """Return the configuration that this baseline runs.

        Raises
        ------
        ConfigError
            If this baseline cannot run the configuration.
        """
        ...

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the unfinished cycles of a configuration that `check` returned."""
        ...


@dataclass(frozen=True, kw_only=True)
class Federated:
    """The federated run with which baselines are compared."""

    NAME: ClassVar[str] = "federated"

    def check(self, config: RunConfig) -> RunConfig:
        """Check the configuration, and return it unchanged."""
        check(config)
        return config

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the fleet with the in-process engine."""
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
    """Build a baseline from its name and options.

    Parameters
    ----------
    text
        The name, followed by ``name=value`` options.

    Raises
    ------
    ConfigError
        If the name or an option is unknown.
    """
    name, _, options = text.strip().partition(" ")
    if name not in BASELINES:
        raise ConfigError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
    module, _, class_name = BASELINES[name].partition(":")
    baseline = getattr(import_module(f".{module}", __package__), class_name)
    return cast(Baseline, baseline(**read_options(options, options_of(baseline, object))))


def in_the_open(config: RunConfig, baseline: Baseline) -> RunConfig:
    """Return the configuration with the baseline and its options added to the run's name.

    Raises
    ------
    ConfigError
        If the configuration asks for privacy or sampling that this baseline does not provide.
    """
    name = baseline.NAME
    if config.privacy.mechanism != "none" or config.strategy.name != "mean":
        raise ConfigError(
            f"the baseline {name!r} is not private: it needs strategy.name "
            f"'mean' and privacy.mechanism 'none', not {config.strategy.name!r} and {config.privacy.mechanism!r}"
        )
    if config.strategy.exchanges > 1 or config.strategy.fraction_train < 1:
        raise ConfigError(f"the baseline {name!r} needs strategy.exchanges 1 and strategy.fraction-train 1")
    given = {option.name: getattr(baseline, option.name) for option in fields(cast(Any, baseline))}
    return replace(config, name=" ".join([f"{config.name}, {name}", *(f"{key}={given[key]}" for key in given)]))
