"""The server half of `steering`: one block of coordinates per layer at which a control vector may be added."""

from __future__ import annotations

from ..encoder import Encoder
from ..model_codec import ModelCodec
from .coordinates import blocks


def steering_codec(encoder: Encoder) -> ModelCodec:
    """Return the server half of `steering`."""
    return ModelCodec(encoder, blocks())
