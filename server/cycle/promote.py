"""Stage `promote`: a candidate becomes the version that devices play, signed and in a folder of its own."""

from __future__ import annotations

from ...protocol.fleet.membership import keys_folder
from ...protocol.records.summary import GateRecord, Lesson
from ...protocol.versions import Manifest
from ..fleet import owner_key
from ..registry import VERSIONS, save_version
from .contender import Version
from .distil import Trained
from .run import Run


def promote(
    run: Run,
    candidate: Trained,
    parent: str,
    cycle: int,
    *,
    lessons: tuple[Lesson, ...] = (),
    cohort: int = 0,
    gate: GateRecord | None = None,
) -> Version:
    """Write a version to the registry.

    Parameters
    ----------
    parent
        Name of the version that it comes from; empty for the first.
    cohort
        Devices whose experience is in it.
    """
    manifest = Manifest(
        candidate.version,
        parent,
        run.learner.base,
        cycle,
        run.config.codec.name,
        lessons,
        cohort,
        gate,
        run.public.digest,
    )
    key = owner_key(keys_folder(run.config))
    save_version(run.folder / VERSIONS, manifest, candidate.adapter, run.learner, key)
    return Version(candidate.version, candidate.adapter)
