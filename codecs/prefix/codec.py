"""The server half of `prefix`: contexts whose norm is bounded, so that soft prompts stay near the start text."""

from __future__ import annotations

from ..encoder import Encoder
from ..model_codec import ModelCodec
from .coordinates import RADIUS


def prefix_codec(encoder: Encoder) -> ModelCodec:
    """Return the server half of `prefix`."""
    return ModelCodec(encoder, radius=RADIUS)
