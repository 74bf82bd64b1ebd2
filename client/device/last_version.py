"""The last good version on a device's disk: the signed request that brought it, which can be checked offline.

A version is kept only after it could be loaded. The version before stays, too, in case the last one's file is damaged.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...protocol.config import RunConfig
from ...protocol.errors import FedoelError, VersionError
from ...protocol.experience import VectorSpec
from ...protocol.formats import KEPT_VERSION, KEY
from ...protocol.host.files import replace_file
from ...protocol.messages import PlayRequest, optional_arrays
from ...protocol.signing import check_request

LAST, BEFORE = "last.npz", "before.npz"
ADAPTER, PARAMETERS = "adapter/", "parameters/"  # prefixes of the names of arrays
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)


def keep(folder: Path, request: PlayRequest, config: RunConfig, drop_last: bool = False) -> None:
    """Keep the request of a version that could be loaded, unless that version is the last one already.

    Parameters
    ----------
    drop_last
        Whether the version before stays the one before, and the last one goes.

    Raises
    ------
    FedoelError
        If the disk refuses it.
    """
    last = version_at(folder / LAST)
    if last == request.spec.policy_version:
        return
    head = {
        KEY: KEPT_VERSION.current, "more": request.more,
        "cycle": request.cycle, "exchange": request.exchange, "spec": request.spec.to_json(),
        "serial": request.serial, "plan": request.plan, "signature": request.signature.hex(),
        "version": request.spec.policy_version, "config": config.to_flat(), "signed-config": request.config,
    }  # fmt: skip
    arrays: dict[str, Any] = {f"{ADAPTER}{name}": array for name, array in request.adapter.items()}
    arrays |= {f"{PARAMETERS}{name}": array for name, array in request.parameters.items()}
    arrays |= optional_arrays(request)
    buffer = io.BytesIO()
    np.savez(buffer, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    try:
        if last and not drop_last:  # copied, so that there is a last version at every moment
            replace_file(folder / BEFORE, (folder / LAST).read_bytes())
        replace_file(folder / LAST, buffer.getvalue())
    except OSError as error:
        raise FedoelError(f"the version cannot be kept in {folder}: {error.strerror}; make room") from error


def last_version(folder: Path, fleet_key: bytes, before: bool = False) -> tuple[RunConfig, PlayRequest]:
    """Read the last version whose file is undamaged and signed by the fleet's owner.

    Parameters
    ----------
    before
        Whether the version before is wanted, and the last one only in its place.

    Returns
    -------
    RunConfig, PlayRequest
        The configuration of the run that sent the version, and the request.

    Raises
    ------
    VersionError
        If there is no such version, or a signature is not the fleet's.
    """
    problem = "no version has been played yet"
    for name in (BEFORE, LAST) if before else (LAST, BEFORE):
        try:
            config, request = _read(folder / name)
            check_request(fleet_key, request)
            return config, request
        except FileNotFoundError:
            continue
        except UNREADABLE as error:
            problem = f"{name} is damaged ({error})"
    raise VersionError(f"there is no version in {folder}: {problem}; the next request brings one")


def version_at(path: Path) -> str:
    """Return the version in a file; empty if the file is missing or damaged."""
    try:
        return str(_head(path)["version"])
    except UNREADABLE:
        return ""


def _read(path: Path) -> tuple[RunConfig, PlayRequest]:
    head = _head(path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    request = PlayRequest(
        head["cycle"], head["exchange"], VectorSpec.from_json(head["spec"]), arrays.get("baseline"),
        _named(arrays, ADAPTER), arrays.get("context"), head["serial"], head["plan"], bytes.fromhex(head["signature"]),
        _named(arrays, PARAMETERS), config=head.get("signed-config", ""),
        more=head.get("more", ""),
    )  # fmt: skip
    return RunConfig.from_flat(head["config"]), request


def _named(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _head(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        head: dict[str, Any] = json.loads(stored["head"].tobytes())
    KEPT_VERSION.check(head.get(KEY, 1), path)
    return head
