"""Strategies by name: built in, installed as an entry point, or given as ``module:Class``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..protocol.config import StrategyConfig
from ..protocol.errors import ConfigError
from ..protocol.options import read_options
from ..protocol.plugins import POINTS
from .buffered import Buffered
from .clustered import Clustered
from .experience import ExperienceStrategy
from .mean import CentralMean, LocalMean, Mean
from .robust import Krum, Median, MultiKrum, NormBounded, TrimmedMean, Trusted, TrustedTrimmed
from .secure_groups import GroupedSecure, TrustedSecure
from .secure_mean import SecureMean
from .server_optimiser import Adam, Momentum
from .server_side import ServerSide

POINT = POINTS["strategy"]
BUILT_IN: Mapping[str, type[ExperienceStrategy]] = MappingProxyType(
    {
        "mean": Mean,
        "secure-mean": SecureMean,
        "central-mean": CentralMean,
        "local-mean": LocalMean,
        "trimmed-mean": TrimmedMean,
        "median": Median,
        "krum": Krum,
        "multi-krum": MultiKrum,
        "norm-bounded": NormBounded,
        "trusted": Trusted,
        "trusted-trimmed": TrustedTrimmed,
        "clustered": Clustered,
        "buffered": Buffered,
        "grouped-secure": GroupedSecure,
        "trusted-secure": TrustedSecure,
        "momentum": Momentum,
        "adam": Adam,
    }
)


def load_strategy(name: str) -> type[ExperienceStrategy]:
    """Return a strategy class by name.

    Parameters
    ----------
    name
        A built-in name, the name of an entry point in the group ``fedoel.strategies``, or ``module:Class``.

    Raises
    ------
    ConfigError
        If the name is unknown, cannot be imported, or does not name a subclass of `ExperienceStrategy`.
    """
    plugin = POINT.find(name, BUILT_IN)
    if not (isinstance(plugin, type) and issubclass(plugin, ExperienceStrategy)):
        raise ConfigError(f"{POINT.setting} {name!r} is {plugin!r}, not a subclass of ExperienceStrategy")
    return plugin


def build_strategy(config: StrategyConfig, server: ServerSide, seed: int, trial_parts: int = 1) -> ExperienceStrategy:
    """Build the strategy of a run's configuration, with its options.

    Raises
    ------
    ConfigError
        If the strategy or an option is unknown, or an option is out of range.
    """
    strategy_class = load_strategy(config.name)
    try:
        options = read_options(config.options, strategy_class.options())
    except ConfigError as error:
        raise ConfigError(f"strategy.options of {config.name!r}: {error}") from error
    return strategy_class(
        server,
        exchanges=config.exchanges,
        fraction_train=config.fraction_train,
        min_available_nodes=config.min_available_nodes,
        patience=config.patience,
        seed=seed,
        trial_parts=trial_parts,
        **options,  # type: ignore[arg-type]
    )
