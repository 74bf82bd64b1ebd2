"""The server's half of `steering`: its parts are the layers at which a control vector may be added."""

from __future__ import annotations

from ..asked import AskedCodec
from ..encoder import Encoder
from .coordinates import parts


def steering_codec(encoder: Encoder) -> AskedCodec:
    """Return the server's half of `steering`."""
    return AskedCodec(encoder, parts())
