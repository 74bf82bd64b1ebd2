"""What a device's folder of an earlier release needs to be as today's are."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.formats import STORE
from ...protocol.host.migration import Step
from .folder import DeviceFolder, open_store


def steps(folder: DeviceFolder) -> Sequence[Step]:
    """Return the steps that a device's folder needs.

    Raises
    ------
    StoreError
        If its store is damaged, or of a later release.
    """
    if not (folder.store.exists() and folder.store_key.exists()):
        return []
    store = open_store(folder)
    number = store.format
    if number == STORE.current:
        return []
    return [
        Step(f"{folder.store.name}: format {number} -> {STORE.current}, names of vectors become HMACs", store.migrate)
    ]
