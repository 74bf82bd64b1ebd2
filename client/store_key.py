"""The key of a store, in the operating system's keyring or in a file that only its owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from ..protocol.errors import StoreError
from ..protocol.host.files import create_secret, exposed

KEY = 32  # bytes
SERVICE = "fedoel"  # name of the keyring's entries


def key_from_file(path: Path) -> bytes:
    """Read a key from a file; if there is no file, draw a key and write it there.

    Raises
    ------
    StoreError
        If others may read the file, it does not hold a key, or it cannot be written.
    """
    try:
        if not path.exists():
            create_secret(path, os.urandom(KEY).hex())
        if exposed(path):
            raise StoreError(f"others may read {path}: chmod 600 it, and rotate the key if they did")
        return _key_from_hex(path.read_text(encoding="ascii"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the key {path} cannot be used ({error})") from error


def key_from_keyring(client: str) -> bytes:
    """Read a client's key from the keyring; if it has none, draw a key and store it there.

    Raises
    ------
    StoreError
        If there is no keyring, or it cannot be used.
    """
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise StoreError("the package keyring is not installed: install it, or keep the key in a file") from error
    try:
        text = keyring.get_password(SERVICE, client)
        if text is None:
            text = os.urandom(KEY).hex()
            keyring.set_password(SERVICE, client, text)
    except KeyringError as error:
        raise StoreError(f"the keyring cannot be used ({error}): keep the key in a file") from error
    return _key_from_hex(text, "the keyring")


def _key_from_hex(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY:
        raise StoreError(f"{where} holds no key of {KEY} bytes in hexadecimal: put it back, or wipe the store")
    return key
