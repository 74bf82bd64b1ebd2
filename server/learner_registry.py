"""Learners by policy backend."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ..codecs.encoder import load_encoder
from ..codecs.tactics.coordinates import VOCABULARY
from ..policies.backend import load_backend
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from .learner import Learner
from .tactics_learner import TacticsLearner
from .torch_learner import TorchLearner


def make_learner(config: RunConfig, cache: Path) -> Learner:
    """Return the learner for a run's policy backend.

    Raises
    ------
    ConfigError
        If the backend is unknown, has no learner, or does not fit the base model.
    ModelError
        If the base model is not found, or cannot be used.
    """
    if config.policy.backend == "tactics":
        return TacticsLearner(load_encoder(config.codec.name).vocabulary == VOCABULARY)
    if config.policy.backend in ("torch", "llama"):  # with either, the server trains in torch
        from ..policies.model_files import find_model

        if find_model(config.policy.base).is_dir() and config.policy.backend == "llama":
            raise ConfigError("policy.backend 'llama' needs a GGUF file as policy.base: devices cannot read a folder")
        if config.policy.decoding == "free":
            from .distillation.losses import token_loss

            token_loss(config.distil)
        if config.policy.base:  # the packaged model is known to work
            from ..policies.torch.model import load_model

            load_model(config.policy, cache)
        return TorchLearner(config, cache)
    learner = getattr(load_backend(config.policy.backend), "learner", None)
    if learner is None:
        raise ConfigError(f"policy.backend {config.policy.backend!r} has no learner(config, cache)")
    return cast(Learner, learner(config, cache))
