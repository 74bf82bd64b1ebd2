"""Where rules conflict, contexts of their own for clusters of devices win what one context for all cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import conflict


def test_clusters_win_where_one_context_for_all_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict, "SETTINGS", {**conflict.SETTINGS, "cycles": 2, "games.held-out": 100})
    mean, clustered = (
        conflict.conflict(arm, "benchmarks.conflict:Lands", 0, tmp_path) for arm in ("mean", "clustered")
    )
    rates = [run.summary.cycles[-1].held_out.win_rate for run in (mean, clustered)]
    assert rates[1] > rates[0] + 0.25
    assert all(stats.win_rate > 0.6 for stats in clustered.summary.cycles[-1].families.values())
    said = conflict.table({"mean": [mean], "clustered": [clustered]})
    assert said.count("\n") == 4 and "| clustered |" in said
