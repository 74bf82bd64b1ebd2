"""Ed25519 signatures (RFC 8032) of a fleet's owner over requests and manifests; devices reject unsigned ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import formats
from .errors import VersionError
from .fleet.log import Head
from .fleet.notice import Notice
from .messages import PlayRequest, optional_arrays

REQUEST, MANIFEST, LOG_HEAD = formats.REQUEST.purpose, formats.MANIFEST.purpose, formats.LOG_HEAD.purpose
NOTICE, TERMS = formats.NOTICE.purpose, formats.TERMS.purpose


def sign_request(key: Ed25519PrivateKey, request: PlayRequest) -> PlayRequest:
    """Return the request with its signature set."""
    return replace(request, signature=key.sign(REQUEST + digest_of(request)))


def check_request(public: bytes, request: PlayRequest) -> None:
    """Check the signature of a request; it covers all fields but the log, which has its own.

    Parameters
    ----------
    public
        The fleet's public key, 32 bytes.

    Raises
    ------
    VersionError
        If the signature is invalid.
    """
    _check(public, request.signature, REQUEST + digest_of(request), "a request to play")


def sign_manifest(key: Ed25519PrivateKey, text: str) -> bytes:
    """Return the signature of a manifest's JSON text."""
    return key.sign(MANIFEST + text.encode())


def check_manifest(public: bytes, signature: bytes, text: str) -> None:
    """Check the signature of a manifest's JSON text; raises as `check_request` does."""
    _check(public, signature, MANIFEST + text.encode(), "a manifest")


def sign_terms(key: Ed25519PrivateKey, text: bytes) -> bytes:
    """Return the signature of the terms of a round, as JSON: whose vectors are added up, and with which noise."""
    return key.sign(TERMS + text)


def check_terms(public: bytes, signature: bytes, text: bytes) -> None:
    """Check the signature of a round's terms; raises as `check_request` does."""
    _check(public, signature, TERMS + text, "the terms of a secure sum")


def sign_head(key: Ed25519PrivateKey, head: Head) -> bytes:
    """Return the signature of a head of the fleet's log."""
    return key.sign(LOG_HEAD + str(head).encode())


def check_head(public: bytes, signature: bytes, head: Head) -> None:
    """Check the signature of a head of the fleet's log; raises as `check_request` does."""
    _check(public, signature, LOG_HEAD + str(head).encode(), "the head of the fleet's log")


def sign_notice(key: Ed25519PrivateKey, notice: Notice) -> Notice:
    """Return the notice with its signature set."""
    return replace(notice, signature=key.sign(NOTICE + notice.body))


def check_notice(public: bytes, notice: Notice) -> None:
    """Check the signature of a notice; raises as `check_request` does."""
    _check(public, notice.signature, NOTICE + notice.body, "a notice")


def entry_of_request(request: PlayRequest) -> Mapping[str, Any]:
    """Return a request's entry in the fleet's log; the digest is of everything that its signature covers."""
    return {
        "serial": request.serial, "cycle": request.cycle, "exchange": request.exchange,
        "version": request.spec.policy_version, "config": request.config, "sha256": digest_of(request).hex(),
    }  # fmt: skip


def _check(public: bytes, signature: bytes, body: bytes, name: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError) as error:
        raise VersionError(f"{name} is not signed by this fleet's key, or was changed: fetch it again") from error


def digest_of(request: PlayRequest) -> bytes:
    """Return the SHA-256 of all fields of a request but signature and log.

    Shapes are included, so that the encoding is unambiguous.
    """
    head = [request.serial, request.cycle, request.exchange, request.spec.to_json(), request.plan]
    head += [request.config] if request.config else []
    head += [[request.more]] if request.more else []
    digest = hashlib.sha256(json.dumps(head).encode())
    arrays = {f"adapter {name}": array for name, array in sorted(request.adapter.items())}
    arrays |= {f"parameter {name}": array for name, array in sorted(request.parameters.items())}
    arrays |= {f"candidate {name}": array for name, array in sorted(request.candidate.items())}
    arrays |= optional_arrays(request)
    for name, array in arrays.items():
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
