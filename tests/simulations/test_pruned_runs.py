"""Checkpoints of cycles that have ended can go: the run goes on to the same result, and keeps what it still needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import VersionError
from fedoel.protocol.records.events import PhaseFinished, PhaseStarted
from fedoel.server.current_version import promote, roll_back
from fedoel.server.cycle import roll_out
from fedoel.server.gate import Differences, Verdict
from fedoel.server.pruning import old_checkpoints, removable, remove
from fedoel.server.registry import WEIGHTS
from fedoel.server.run_location import RunLocation, locate
from fedoel.server.verify import verify
from fedoel.server.version_list import VersionList

from .gates import OpenGate
from .test_versions_of_a_run import Stopped, at, both, cycles, play, small, stop, versions_of


class Alternating(OpenGate):
    """Refuses every second candidate."""

    asked = 0

    def candidate_holds(self, differences: Differences) -> Verdict:
        type(self).asked += 1
        return Verdict(self.asked % 2 == 1, "as the test wants it")


def trained(run: Path) -> list[str]:
    return sorted(path.relative_to(run / "checkpoints").as_posix() for path in run.glob("checkpoints/*/distil*.npz"))


def prune(run: Path, keep: int = 0) -> None:
    assert main(["prune", str(run), "--checkpoints", "--keep", str(keep)]) == 0


@pytest.mark.parametrize("kind", ["plain", "chosen", "in stages"])
def test_a_run_goes_on_to_the_same_result_without_the_checkpoints_of_ended_cycles(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(small(tmp_path / "whole", cache), cycles=4)
    if kind == "in stages":
        config = replace(config, rollout=replace(config.rollout, stages="0.4 0.7 1"))
        monkeypatch.setattr(roll_out, "stage_holds", lambda *_: Verdict(True, "it holds"))

    def chosen(config: RunConfig) -> Any:
        place = RunLocation(Path(config.out), Path(config.out) / "keys")
        return at(PhaseFinished, 2, "distil", lambda: roll_back(place)) if kind == "chosen" else lambda event: None

    play(config, chosen(config))
    killed = replace(config, out=str(tmp_path / "killed"))
    with pytest.raises(Stopped):
        play(killed, both(chosen(killed), at(PhaseFinished, 3, "collect", stop)))
    run = Path(killed.out)
    before = trained(run)
    prune(run)
    assert before and not trained(run) and (run / "checkpoints" / "cycle-000" / "warm-start.npz").exists()
    weights = [path.parent.name for path in run.glob(f"versions/*/{WEIGHTS}")]
    assert len(weights) == (2 if kind == "in stages" else 1), "the current version, and the one that it replaces"
    assert not verify(locate(run)).problems
    play(replace(killed, resume=True))
    assert cycles(killed) == cycles(config) and not verify(locate(run)).problems
    assert all(name > "cycle-002" for name in trained(run)), "nothing was trained again"
    prune(run)
    play(replace(killed, resume=True))  # all of its cycles have ended
    assert cycles(killed) == cycles(config) and not verify(locate(run)).problems
    play(replace(killed, resume=True, cycles=5))
    assert cycles(killed)[:5] == cycles(config) and not verify(locate(run)).problems


def test_what_an_operator_can_still_choose_stays_and_the_rest_is_gone(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, Alternating.asked = replace(small(tmp_path / "run", cache), cycles=4), 0
    config = replace(config, distil=replace(config.distil, halvings=0))
    play(config, gate=Alternating)
    run, place = Path(config.out), locate(tmp_path / "run")
    decisions = [version.decision for version in VersionList(place).versions]
    assert decisions == ["warm-start", "promoted", "rejected", "promoted", "rejected"]
    first, second, refused_early, third, refused_late = versions_of(place)
    with_all = trained(run)
    assert main(["prune", str(run), "--checkpoints", "--keep", "1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"would remove the weights of {first}" in said and "would remove checkpoints/cycle-002/distil" in said
    assert trained(run) == with_all
    prune(run, keep=1)
    assert [VersionList(place).has_weights(name) for name in (first, second, third)] == [False, True, True]
    assert {name[:9] for name in trained(run)} == {"cycle-004"}, "the candidate of the last cycle can be promoted"
    with pytest.raises(VersionError, match=f"the weights of version {refused_early} are neither in"):
        promote(place, refused_early)
    promote(place, refused_late)
    roll_back(place, third)
    roll_back(place, second)
    assert removable(VersionList(place), 0) == [], "without --checkpoints, only what would come back is removed"
    roll_back(place, first)  # the warm start stays in its checkpoint: red lines and games turn by turn begin with it
    assert not verify(place).problems
    for verb in ("versions", "show"):
        assert main([verb, str(run)]) == 0
    assert main(["diff", str(run), first, third]) == 0
    assert main(["play", "--run", str(run), "--before", refused_early]) == REFUSED


def test_a_run_whose_cycles_an_earlier_release_has_ended_has_to_go_on_first(tmp_path: Path, cache: Path) -> None:
    config = replace(small(tmp_path / "run", cache), cycles=2)
    with pytest.raises(Stopped):
        play(config, at(PhaseStarted, 2, "distil", stop))
    run = Path(config.out)
    for path in run.glob("checkpoints/*/ended.npz"):
        path.unlink()
    with pytest.raises(VersionError, match="let the run go on with this one first"):
        old_checkpoints(VersionList(locate(run)))
    play(replace(config, resume=True))
    place = locate(run)
    assert remove(place, [], 0, old_checkpoints(VersionList(place), 0)) > 0
    assert not verify(place).problems
    assert cycles(config)[2]["decision"] == "promoted"
