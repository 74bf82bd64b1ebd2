"""The server's half of `prefix`: the model says what a soft prompt does, and contexts stay near the start text."""

from __future__ import annotations

from ..asked import AskedCodec
from ..encoder import Encoder
from .coordinates import RADIUS


def prefix_codec(encoder: Encoder) -> AskedCodec:
    """Return the server's half of `prefix`."""
    return AskedCodec(encoder, radius=RADIUS)
