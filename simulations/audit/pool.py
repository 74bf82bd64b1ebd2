"""The pool of devices for attacks: vectors of real play, where each device plays one of two families."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...client.app import streams
from ...codecs.encoder import encode, load_encoder
from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy
from ...games.partition import client_games
from ...games.player import Advance, play_episodes
from ...protocol.config import RunConfig
from ...protocol.experience import VectorSpec
from ...protocol.play import specs_from_text
from .attacks import Pool

# Families in pure Python, so that an audit takes minutes; the protections do not depend on the family.
FAMILIES = "frozen-lake size=4 turns=12; sokoban turns=8"


def play_pool(config: RunConfig, devices: int, cache: Path, advance: Advance = lambda n: None) -> Pool:
    """Let devices play with the uniform policy, and encode the trajectories of each."""
    specs, encoder = specs_from_text(FAMILIES), load_encoder("tactics")
    policy = TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))
    names, codec = tuple(spec.family for spec in specs), config.codec
    spec = VectorSpec(
        encoder.name, encoder.dimension, encoder.vocabulary, policy.version, names, 12, codec.clipping_norm,
        codec.fisher_norm,
    )  # fmt: skip
    baseline, vectors, families = np.zeros((len(names), 12), np.float32), [], []
    for device in range(devices):
        family_spec = specs[device % len(specs)]
        games = client_games((family_spec,), device, devices, config.games.per_client, 1, "iid", config.seed)
        played = play_episodes(policy, games, streams(config.seed, 1, device, len(games)), cache)
        vectors.append(encode(encoder, policy, played, spec, baseline, codec.discount))
        families.append(family_spec.family)
        advance(1)
    return Pool(vectors, families)
