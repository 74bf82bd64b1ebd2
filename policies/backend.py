"""Backends by name, built in or plugged in: they load policy versions.

A plug-in is a class with `abilities`, `load`, and `learner(config, cache)`. The latter returns the server half, a
`fedoel.server.learner.Learner`, which makes versions of the policy. Devices never call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from ..protocol.config import PolicyConfig
from ..protocol.errors import ModelError
from ..protocol.plugins import POINTS
from ..protocol.versions import Adapter
from .abilities import ABILITIES, EMBEDDING, RESIDUAL
from .policy import Policy


class Backend(Protocol):
    """Loads policy versions."""

    @property
    def abilities(self) -> frozenset[str]:
        """What its policies can do beyond scoring commands: see `fedoel.policies.abilities`."""

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load a policy from base and adapter, and check its version unless `version` is empty.

        Raises
        ------
        ModelError
            If base and adapter make another version.
        """


class TorchBackend:
    """A language model with LoRA layers, by torch and transformers."""

    abilities = ABILITIES

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load the base model once per process, and the adapter. Imports torch, which other backends do without."""
        from .torch.policy import load_policy

        return load_policy(config, adapter, version, cache)


class LlamaBackend:
    """The same language model by llama.cpp, without torch."""

    abilities: frozenset[str] = frozenset({RESIDUAL, EMBEDDING})

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        """Load the base model once per process, and the adapter."""
        try:
            from .llama.policy import load_policy
        except (ImportError, OSError, RuntimeError) as error:  # llama_cpp raises RuntimeError, too
            raise ModelError(
                "policy.backend 'llama' needs llama.cpp: pip install 'fedoel[llama]' (pip compiles it)"
            ) from error

        return load_policy(config, adapter, version, cache)


# The policy without a language model is made of a codec's coordinates: it stands in the codec's folder.
BACKENDS: Mapping[str, type[Backend] | str] = MappingProxyType(
    {"torch": TorchBackend, "llama": LlamaBackend, "tactics": "fedoel.codecs.tactics.policy:TacticsBackend"}
)


def load_backend(name: str) -> Backend:
    """Return a backend: built in, from an entry point, or ``module:Class``.

    Raises
    ------
    ConfigError
        If no backend has this name, or the object lacks a member of `Backend`.
    """
    return cast(Backend, POINTS["policy"].find_instance(name, BACKENDS, "backend", ("abilities", "load")))


def load_version(config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
    """Load a policy with the backend of a configuration, and check its version unless `version` is empty.

    Raises
    ------
    ConfigError
        If the backend is unknown.
    ModelError
        If base and adapter make another version.
    """
    return load_backend(config.backend).load(config, adapter, version, cache)
