"""What an operator has made the current version while a run is under way: `fedoel rollback`, `promote` and `approve`.

The choice is an entry in the run's journal. The run looks for one before every message to devices and before it makes a
version of its own, so that the next message carries the chosen version. A cycle that has collected something about
another version by then ends without a version: nothing that was learned about one version is added to another.

Which cycle has taken which choice is an entry in the journal, too, so that a resumed run comes to the same versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...protocol.fleet.membership import keys_folder, load_members
from ...protocol.records.journal import TAKEN, Entry
from ..journal import Journal
from ..registry import VERSIONS, load_adapter, load_manifest
from .collect import finished
from .contender import Version, begin
from .run import Run, State
from .trial import play_block


class Overruled(Exception):
    """An operator has chosen another version while a cycle was under way."""


@dataclass
class Choices:
    """The operator's choices in one process of a run.

    Parameters
    ----------
    overruled
        Cycles that a choice has ended, by the version that was chosen.
    """

    run: Run
    journal: Journal
    overruled: dict[int, str] = field(default_factory=dict)
    _last: int = 0

    def take(self, state: State, cycle: int) -> State:
        """Return the state with the version that an operator has chosen, or the state as it is.

        Parameters
        ----------
        cycle
            The cycle under way. One that has ended in an earlier process takes what it took then.
        """
        if cycle > self.journal.finished and (pending := self.journal.pending):
            choice = pending[-1]
            version = str(choice.values["version"])
            ends = version != state.version.name and bool(finished(self.run, cycle))
            self.journal.add(TAKEN, choice=choice.number, version=version, cycle=cycle, overruled=ends)
        for entry in self.journal.of_kind(TAKEN):
            if entry.number > self._last and entry.values["cycle"] == cycle:
                self._last = entry.number
                state = self._with(state, entry)
        return state

    def _with(self, state: State, entry: Entry) -> State:
        """Return the state after one choice: with the version, and what the gate sees of it.

        A version that was made from the current one is rolled out in stages; any other goes to the whole fleet at once.
        """
        name, cycle = str(entry.values["version"]), int(entry.values["cycle"])
        if entry.values["overruled"]:
            self.overruled[cycle] = name
        if name == state.version.name:
            return state
        _, fleet_key = load_members(keys_folder(self.run.config))
        folder = self.run.folder / VERSIONS / name
        version, parent = Version(*load_adapter(folder, fleet_key)), load_manifest(folder, fleet_key).parent
        rollout = begin(self.run.config, state.version) if parent == state.version.name else None
        contender = self.run.contender(version.adapter)
        seen = play_block(self.run, version, cycle, f"gate-chosen-{entry.number}", contender, 1)
        return replace(state, version=version, evidence=seen, rollout=rollout)
