"""Removal of weights that nothing needs any more: of versions, and of the candidates that ended cycles have trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ..protocol.errors import VersionError
from ..protocol.records.journal import REMOVED, TAKEN
from .cycle.ended import begins_behind, ended_in
from .cycle.phases import cycle_folder
from .registry import WEIGHTS
from .run_location import RunLocation
from .version_list import VersionList, version_in

KEPT = 5  # versions before the current one whose weights stay
CHECKPOINTS = "distil*.npz"  # phases that a candidate's weights are removed from


def removable(versions: VersionList, keep: int = KEPT, checkpoints: bool = False) -> list[str]:
    """Return the versions whose weights nothing needs.

    Weights stay of the current version and of `keep` versions before it, of what an operator has chosen, and of
    candidates that wait. Manifests and signatures always stay: the chain of parents is made of them.
    Devices hold the version that they would fall back to themselves.

    Parameters
    ----------
    checkpoints
        Whether `old_checkpoints` are removed, too. Otherwise only weights are named that a checkpoint has, so that they
        come back when the version is chosen.
    """
    needed = _needed(versions, keep, checkpoints)
    return [
        name
        for name in dict.fromkeys(version.name for version in versions.versions)
        if name not in needed and versions.has_weights(name) and (checkpoints or _comes_back(versions, name))
    ]


def old_checkpoints(versions: VersionList, keep: int = KEPT) -> list[Path]:
    """Return the checkpoints of candidates that neither a resumed run nor an operator needs.

    They are of cycles that have ended: a resumed run begins behind them. Those stay that hold the only weights of a
    version that `removable` leaves, or of a candidate that was refused in the last `keep` cycles.

    Raises
    ------
    VersionError
        If the last cycle that has ended has kept nothing that a run could begin from.
    """
    run, journal, needed = versions.place.run, versions.journal, _needed(versions, keep, True)
    paths = list[Path]()
    for cycle in range(1, journal.finished + 1):
        if journal.decision(cycle) is not None:  # of a cycle before the journal, the file says which candidate it was
            for path in sorted(cycle_folder(run, cycle).glob(CHECKPOINTS)):
                name = version_in(path)
                if versions.has_weights(name) or name not in needed:
                    paths.append(path)
    return paths


def remove(
    place: RunLocation, names: Collection[str], keep: int = KEPT, checkpoints: Collection[Path] | None = None
) -> int:
    """Remove weights of versions, as far as `removable` still names them; return how many bytes that freed.

    Parameters
    ----------
    checkpoints
        Files to remove in addition, as far as `old_checkpoints` still names them; None if all stay.
    """
    journal, freed = place.opened_journal(), 0
    with journal.held():
        versions = VersionList(place)
        of_versions = [name for name in removable(versions, keep, checkpoints is not None) if name in names]
        files = [place.versions / name / WEIGHTS for name in of_versions]
        behind = dict[str, int]()
        if checkpoints is not None:
            files += [path for path in old_checkpoints(versions, keep) if path in checkpoints]
            behind = {"cycle": journal.finished}
        if files:  # written before it happens, so that no file is ever missing without an entry
            journal.add_held(REMOVED, files=[path.relative_to(place.run).as_posix() for path in files], **behind)
        for path in files:
            freed += path.stat().st_size
            path.unlink()
    return freed


def _needed(versions: VersionList, keep: int, checkpoints: bool) -> set[str]:
    """Return the versions whose weights stay."""
    journal, current = versions.journal, versions.current
    behind = journal.finished if checkpoints else begins_behind(journal)
    needed = {*versions.lineage(current)[: keep + 1], *(str(e.values["version"]) for e in journal.pending)}
    needed |= {version.name for version in versions.versions if version.decision == "waiting"}
    # A resumed run reads what was chosen in the cycles that it goes through, and what it begins from.
    needed |= {str(entry.values["version"]) for entry in journal.of_kind(TAKEN) if entry.values["cycle"] > behind}
    needed |= _begins_with(versions, behind)
    if versions.records:  # what plays until the run takes the choice
        needed |= {*versions.lineage(versions.records[-1].version)[: keep + 1]}
    if checkpoints:
        last = [version for version in versions.versions if version.cycle > journal.finished - keep]
        needed |= {version.name for version in last if version.decision == "rejected"}
    return needed


def _begins_with(versions: VersionList, behind: int) -> set[str]:
    """Return the versions that a run which begins behind a cycle reads."""
    if behind <= 0:
        return set()
    ended = ended_in(versions.place.run, behind)
    if ended is None:
        raise VersionError(
            f"checkpoints of {versions.place.run} cannot be removed: a release before this one ended its last cycle, "
            "and kept nothing to begin from; let the run go on with this one first, or leave --checkpoints out"
        )
    return ended.versions


def _comes_back(versions: VersionList, name: str) -> bool:
    """Whether a version's weights are in the checkpoint of a cycle, too."""
    made: Sequence[int] = [version.cycle for version in versions.versions if version.name == name]
    return any(versions.checkpoint_of(cycle, name) is not None for cycle in made)
