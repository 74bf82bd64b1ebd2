"""Backends by name: what loads a policy version on a device, built in or plugged in.

A plug-in is a class with `abilities`, `load`, and `learner(config, cache)`, which returns its half on the server, a
`fedoel.server.learner.Learner`: where versions of the policy come from. Devices never call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from ..protocol.config import PolicyConfig
from ..protocol.errors import ConfigError, ModelError
from ..protocol.plugins import POINTS
from .abilities import ABILITIES, RESIDUAL
from .policy import Policy

Adapter = Mapping[str, NDArray[Any]]
POINT = POINTS["policy"]


class Backend(Protocol):
    """Loads the policies of one kind."""

    @property
    def abilities(self) -> frozenset[str]:
        """What its policies can do beyond playing: see `fedoel.policies.abilities`."""
        ...

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load a policy version; without a version, whatever the adapter makes.

        Raises
        ------
        ModelError
            If base and adapter do not make this version.
        """
        ...


class TorchBackend:
    """A language model with LoRA layers, by transformers."""

    abilities = ABILITIES

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load the base model once, and put the adapter on it. Devices that play without a model have no torch."""
        from .torch.policy import load_policy

        return load_policy(config, adapter, version, cache)


class LlamaBackend:
    """The same language model by llama.cpp: no torch."""

    abilities: frozenset[str] = frozenset({RESIDUAL})

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load the base model once, and put the adapter on it."""
        try:
            from .llama.policy import load_policy
        except (ImportError, OSError, RuntimeError) as error:  # a library that cannot be loaded raises its own
            raise ModelError(
                "policy.backend 'llama' needs llama.cpp: pip install 'fedoel[llama]' (pip compiles it)"
            ) from error

        return load_policy(config, adapter, version, cache)


# Players without a language model are made of a codec's coordinates, so they stand beside the codec and plug in here.
BACKENDS: Mapping[str, type[Backend] | str] = MappingProxyType(
    {"torch": TorchBackend, "llama": LlamaBackend, "tactics": "fedoel.codecs.tactics.policy:TacticsBackend"}
)


def load_backend(name: str) -> Backend:
    """Return a backend: built in, installed, or one's own as ``module:Class``.

    Raises
    ------
    ConfigError
        If there is none of this name, or it is none.
    """
    found = POINT.find(name, BACKENDS)
    backend = found() if isinstance(found, type) else found
    if missing := [member for member in ("abilities", "load") if not hasattr(backend, member)]:
        raise ConfigError(f"{POINT.setting} {name!r} is no backend: it has no {', '.join(missing)}")
    return cast(Backend, backend)


def load_version(config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
    """Load a policy version with the backend of a configuration; without a version, whatever the adapter makes.

    Raises
    ------
    ConfigError
        If the backend is unknown.
    ModelError
        If base and adapter do not make this version.
    """
    return load_backend(config.backend).load(config, adapter, version, cache)
