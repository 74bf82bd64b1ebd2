"""A whole run whose devices say how they are, in secure sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedoel.protocol.config import RunConfig
from fedoel.server.summary import read_summary
from fedoel.simulations.inprocess import run_inprocess


def test_devices_count_themselves_in_secure_sums_and_learn_the_same(cache: Path, tmp_path: Path) -> None:
    config = RunConfig.from_flat({
        "clients": 8, "cycles": 1, "seed": 9000, "games.families": "tidy things=1 final=0 turns=8",
        "games.per-client": 2, "games.held-out": 2, "policy.backend": "tactics", "server.pack": 60,
        "server.prompts-per-cycle": 30, "strategy.name": "secure-mean", "trial.share": 0.5, "trial.health": True,
        "out": str(tmp_path / "run"), "cache": str(cache),
    })  # fmt: skip
    run_inprocess(config)
    first, last = read_summary(Path(config.out)).cycles
    assert first.health is None and last.health is not None and last.health.deviation == 0
    [known] = [one for one in last.health.classes.values() if one.answers]  # one machine plays for all
    assert known.answers in (4, 8, 12, 16), "a half of the fleet or both, of the candidate and of the one nearer to it"
    assert known.died == known.behind == 0
    assert sum(known.pace) == sum(known.peak) == known.answers
    silent = replace(config, out=str(tmp_path / "silent"), trial=replace(config.trial, health=False))
    run_inprocess(silent)
    other = read_summary(Path(silent.out)).cycles[-1]
    assert (other.version, other.decision, other.reason) == (last.version, last.decision, last.reason)
    assert other.health is None and other.uplink_bytes == last.uplink_bytes
