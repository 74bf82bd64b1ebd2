"""A promoted version reaches the fleet in stages: who is asked, when the next one begins, and what an operator does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.cli.main import main
from fedoel.protocol.config import RunConfig, Scalar, StrategyConfig
from fedoel.protocol.records.events import PhaseFinished
from fedoel.protocol.records.summary import CycleRecord
from fedoel.protocol.rollout import reached
from fedoel.server.current_version import roll_back
from fedoel.server.cycle import roll_out
from fedoel.server.cycle.roll_out import stage_holds
from fedoel.server.gate import Differences, Verdict
from fedoel.server.run_location import locate
from fedoel.server.summary import read_summary
from fedoel.server.verify import verify

from .test_versions_of_a_run import Stopped, at, play, stop

CLIENTS, STAGES = 8, (0.1, 0.5, 1.0)
LEAST = 3  # devices of a secure sum of which none may collude


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> RunConfig:
    return RunConfig.from_flat({
        "clients": CLIENTS, "cycles": 4, "games.families": "frozen-lake turns=6", "games.per-client": 2,
        "games.rehearsal": 6, "games.gate": 6, "games.held-out": 2, "policy.backend": "tactics",
        "server.public": "games", "out": str(tmp_path / "run"), "cache": str(cache),
        "rollout.stages": " ".join(map(str, STAGES)), "privacy.colluding": 0.0,
    })  # fmt: skip


@pytest.fixture(autouse=True)
def holds(monkeypatch: pytest.MonkeyPatch) -> list[Verdict]:
    """What the gate says of the stages, one after the other; and that all hold behind these."""
    verdicts = list[Verdict]()
    monkeypatch.setattr(roll_out, "stage_holds", lambda *_: verdicts.pop(0) if verdicts else Verdict(True, "it holds"))
    return verdicts


def cycles(config: RunConfig) -> tuple[CycleRecord, ...]:
    return read_summary(Path(config.out)).cycles


@pytest.mark.parametrize("strategy", ["mean", "secure-mean"])
def test_a_version_reaches_the_fleet_in_stages_and_the_next_one_is_made_behind_the_last(
    config: RunConfig, strategy: str
) -> None:
    config, least = replace(config, strategy=StrategyConfig(strategy)), LEAST if strategy == "secure-mean" else 1
    with pytest.raises(Stopped):
        play(config, at(PhaseFinished, 3, "collect", stop))
    play(replace(config, resume=True))
    first, *stages, last = cycles(config)[1:]
    assert [one.decision for one in (first, *stages, last)] == ["promoted", "rolling-out", "rolling-out", "promoted"]
    assert {one.version for one in stages} == {first.version} != {last.version}
    assert [one.reach for one in (first, *stages, last)] == [0.1, 0.5, None, 0.1]
    assert [one.accepted for one in stages] == [
        len(reached(range(CLIENTS), first.version, share, least)) for share in STAGES[:2]
    ]
    assert (first.accepted, last.accepted) == (CLIENTS, CLIENTS)
    assert first.reason.endswith("; stage 1 of 3, 0.1 of the fleet begins")
    assert stages[0].reason == "stage 1 of 3, 0.1 of the fleet: it holds; stage 2 of 3, 0.5 of the fleet begins"
    assert stages[1].reason.endswith("it goes to the whole fleet")
    assert not verify(locate(Path(config.out))).problems


@pytest.mark.parametrize("strategy", ["mean", "secure-mean"])
def test_where_the_server_has_prompts_only_the_devices_of_a_stage_try_the_version_before(
    config: RunConfig, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that asks the fleet decides as it is; who answers for a stage are the devices that it has, all of them."""
    monkeypatch.setattr(roll_out, "stage_holds", stage_holds)
    changed: dict[str, Scalar] = {"strategy.name": strategy, "server.public": "prompts", "trial.games": 2}
    config = RunConfig.from_flat({**config.to_flat(), **changed})
    play(config)
    first, *stages, last = cycles(config)[1:]
    assert [one.decision for one in (first, *stages, last)] == ["promoted", "rolling-out", "rolling-out", "promoted"]
    least = LEAST if strategy == "secure-mean" else 1
    asked = [len(reached(range(CLIENTS), first.version, share, least)) for share in STAGES[:2]]
    assert [one.accepted for one in stages] == asked and last.accepted == CLIENTS
    for stage, devices in zip(stages, asked, strict=True):
        assert f": 0 of {devices} devices have gone back, and the version before has merit " in stage.reason
    assert not verify(locate(Path(config.out))).problems


def test_versions_say_how_far_the_current_one_has_got(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    said = list[str]()
    for last in (2, 3):
        play(replace(config, cycles=last, out=f"{config.out}-{last}", strategy=StrategyConfig("mean")))
        assert main(["versions", f"{config.out}-{last}"]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    rest = "the rest has the version before until the next stage"
    assert said == [f"* is current, for 0.5 of the fleet; {rest}", "* is current: what devices play"]


def test_a_stage_that_does_not_hold_is_repeated_until_an_operator_goes_back(
    config: RunConfig, holds: list[Verdict]
) -> None:
    holds += [Verdict(False, "2 of 2 devices have gone back")] * 2
    play(config, at(PhaseFinished, 3, "collect", lambda: roll_back(locate(Path(config.out)))))
    first, held, overruled, after = cycles(config)[1:]
    assert (held.decision, held.reach) == ("rolling-out", 0.1) and held.reason.endswith("; it is repeated")
    assert overruled.decision == "overruled" and overruled.version != first.version
    assert overruled.reach is None and after.accepted == CLIENTS, "what an operator goes back to is for all"


def test_without_stages_nothing_is_different(config: RunConfig) -> None:
    once = replace(config, cycles=1, rollout=type(config.rollout)(), strategy=StrategyConfig())
    play(once)
    assert cycles(once)[1].decision == "promoted" and "stage" not in cycles(once)[1].reason
    assert '"reach"' not in (Path(once.out) / "summary.json").read_text()


def differences(gain: float, fallbacks: float = 0.0, games: int = 40) -> Differences:
    """Of the version before from the current one, each game with a difference of 1 more or less."""
    episodes = np.array([float(games)])
    return Differences(("tidy",), episodes, episodes * gain, episodes * (1 + gain**2), devices=20, fallbacks=fallbacks)


@pytest.mark.parametrize(
    ("seen", "passes", "says"),
    [
        (differences(0.0), True, "0 of 20 devices have gone back"),
        (differences(0.2), True, "merit +0.200"),  # which may be chance
        (differences(-1.0, fallbacks=5), True, "5 of 20"),
        (differences(-1.0, fallbacks=6), False, "6 of 20 devices have gone back to the version before"),
        (differences(0.5), False, "the version before does better, merit +0.500"),
        (differences(0.0, games=0), False, "no device answered"),
    ],
)
def test_a_stage_holds_unless_devices_go_back_or_the_version_before_is_clearly_better(
    seen: Differences, passes: bool, says: str
) -> None:
    verdict = stage_holds(RunConfig(), seen)
    assert (verdict.passed, verdict.sure) == (passes, False) and says in verdict.reason
