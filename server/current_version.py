"""What an operator does to a run's versions: roll back, promote and approve.

Each makes a signed entry in the run's journal, under the journal's lock. A run that is under way takes the entry before
its next message to devices; one that is not, when it is started again.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..protocol.errors import VersionError
from ..protocol.host.files import move_into_place
from ..protocol.records.journal import CURRENT, Entry
from ..protocol.versions import Manifest
from .fleet import owner_key
from .journal import OPERATOR
from .learner import DRIFTED, LOST, UNFIT
from .red_lines import CROSSED
from .registry import DRAFT, MANIFEST, SIGNATURE, WEIGHTS, load_adapter, save_version
from .run_location import RunLocation
from .version_list import KnownVersion, VersionList


def roll_back(place: RunLocation, name: str = "") -> Entry:
    """Make an earlier version current: the parent of the current one, or the ancestor that is named.

    Raises
    ------
    VersionError
        If it is no ancestor of the current version, or its folder does not verify.
    """
    versions = VersionList(place)
    ancestors = versions.lineage(versions.current)[1:]
    if not ancestors:
        raise VersionError(f"version {versions.current or 'none'} is the first one: there is nothing to go back to")
    target = versions.find(name) if name else versions.find(ancestors[0])
    if target.name not in ancestors:
        raise VersionError(
            f"version {target.name} is no ancestor of the current one, {versions.current}: fedoel promote takes any "
            "version"
        )
    return _choose(versions, target, f"rolled back from {versions.current}")


def promote(place: RunLocation, name: str, anyway: bool = False) -> Entry:
    """Make any version of the run current, also a candidate that was refused.

    Parameters
    ----------
    anyway
        Whether it may be one that was refused because of a red line, of its drift from the base model, of abilities
        that it has lost, or of its answers.

    Raises
    ------
    VersionError
        If there is no such version, its weights are gone, its folder does not verify, or it was refused because of a
        red line, its drift, lost abilities or its answers.
    """
    versions = VersionList(place)
    target = versions.find(name)
    untried = any(why in target.reason for why in (CROSSED, DRIFTED, LOST, UNFIT))
    if target.decision == "rejected" and untried and not anyway:
        raise VersionError(f"version {target.name} was refused: {target.reason}; add --anyway if that is meant")
    return _choose(versions, target, f"promoted by an operator; the run said {target.decision}")


def approve(place: RunLocation, name: str = "") -> Entry:
    """Make a candidate current that has passed every gate and waits: the last one, or the one that is named.

    Raises
    ------
    VersionError
        If none waits, or it was made from another version than the current one.
    """
    versions = VersionList(place)
    current = versions.current
    waiting = [version for version in versions.versions if version.decision == "waiting" and version.parent == current]
    named = [version for version in waiting if version.name.startswith(name)]
    if not named:
        which = f"version {name} does not wait" if name else "nothing waits"
        raise VersionError(f"{which} for approval behind the current version, {current}: see `fedoel versions`")
    return _choose(versions, named[-1], "approved by an operator")


def _choose(versions: VersionList, target: KnownVersion, reason: str) -> Entry:
    """Verify a version, and write it into the journal as the current one."""
    place = versions.place
    _restore(versions, target)
    load_adapter(place.versions / target.name, place.fleet_key)
    journal = place.opened_journal()
    with journal.held():
        if target.name == journal.current:
            raise VersionError(f"version {target.name} is the current one already")
        return journal.add_held(CURRENT, version=target.name, by=OPERATOR, cycle=journal.finished, reason=reason)


@dataclass(frozen=True, slots=True)
class _AsBeside:
    """Describes an adapter as another version of the same run does."""

    other: Path

    def describe(self, folder: Path) -> None:
        for path in self.other.iterdir():
            if path.name not in (WEIGHTS, MANIFEST, SIGNATURE):
                shutil.copyfile(path, folder / path.name)


def _restore(versions: VersionList, target: KnownVersion) -> None:
    """Put a version's weights back from the cycle that trained it, where the registry does not have them.

    Raises
    ------
    VersionError
        If the cycle's checkpoint is gone, too.
    """
    place = versions.place
    if versions.has_weights(target.name):
        return
    adapter = versions.adapter(target)
    if adapter is None:
        raise VersionError(
            f"the weights of version {target.name} are neither in {place.versions} nor in a checkpoint any more: "
            "choose a version that `fedoel versions` lists with weights"
        )
    manifest = versions.manifest(target.name)
    if manifest is None:
        parent = versions.manifest(target.parent)
        if parent is None or target.record is None:
            raise VersionError(f"version {target.name} has no parent in {place.versions} to describe it by")
        record = target.record
        gate = replace(record.gate, reason=f"{record.decision}: {record.reason}") if record.gate else None
        manifest = Manifest(
            target.name, target.parent, parent.base, target.cycle, parent.codec, record.lessons, record.accepted, gate,
            parent.prompts,
        )  # fmt: skip
        manifest.check(adapter)
        save_version(
            place.versions, manifest, adapter, _AsBeside(place.versions / target.parent), owner_key(place.keys)
        )
        return
    from safetensors.numpy import save_file

    manifest.check(adapter)
    with tempfile.TemporaryDirectory(dir=place.versions, prefix=DRAFT) as folder:
        save_file(dict(adapter), str(Path(folder) / WEIGHTS))
        move_into_place(Path(folder) / WEIGHTS, place.versions / target.name / WEIGHTS)
