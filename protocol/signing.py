"""Signatures of what a fleet's owner sends: a device plays with what was signed, and with nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import VersionError
from .messages import PlayRequest

REQUEST, MANIFEST = b"fedoel request 1\0", b"fedoel manifest 1\0"


def sign_request(key: Ed25519PrivateKey, request: PlayRequest) -> PlayRequest:
    """Return the request with its signature."""
    return replace(request, signature=key.sign(REQUEST + _digest(request)))


def check_request(public: bytes, request: PlayRequest) -> None:
    """Refuse a request that the fleet's owner has not signed as it is: adapter, context, version and serial number.

    Raises
    ------
    VersionError
        If the signature does not hold.
    """
    _check(public, request.signature, REQUEST + _digest(request), "a request to play")


def sign_manifest(key: Ed25519PrivateKey, text: str) -> bytes:
    """Sign a manifest as it is written."""
    return key.sign(MANIFEST + text.encode())


def check_manifest(public: bytes, signature: bytes, text: str) -> None:
    """Refuse a manifest that the fleet's owner has not signed; raises as `check_request` does."""
    _check(public, signature, MANIFEST + text.encode(), "a manifest")


def _check(public: bytes, signature: bytes, body: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError) as error:
        raise VersionError(f"{what} is not signed by this fleet's key, or was changed: fetch it again") from error


def _digest(request: PlayRequest) -> bytes:
    """Hash everything in a request but its signature; every part says how long it is."""
    head = [request.serial, request.cycle, request.exchange, request.spec.to_json(), request.plan]
    digest = hashlib.sha256(json.dumps(head).encode())
    arrays = {"baseline": request.baseline, **{f"adapter {name}": a for name, a in sorted(request.adapter.items())}}
    if request.context is not None:
        arrays["context"] = request.context
    for name, array in arrays.items():
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
