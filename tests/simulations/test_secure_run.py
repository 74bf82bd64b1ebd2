"""Runs whose server sees sums only: the same results as in the clear, and a budget that ends them cleanly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.simulations.inprocess import run_inprocess

SETTINGS: dict[str, Scalar] = {
    "name": "small", "clients": 8, "cycles": 2, "games.families": "frozen-lake size=3 turns=6", "games.per-client": 8,
    "games.rehearsal": 4, "games.gate": 4, "games.held-out": 8, "policy.backend": "tactics",
    "strategy.name": "secure-mean", "server.public": "games",
}  # fmt: skip
NOISY: dict[str, Scalar] = {"privacy.mechanism": "distributed", "privacy.epsilon": 8.0, "codec.clipping-norm": 2.0}


def run(tmp_path: Path, cache: Path, **changed: Scalar) -> dict[str, Any]:
    out = tmp_path / "run"
    run_inprocess(RunConfig.from_flat({**SETTINGS, **changed, "cache": str(cache), "out": str(out)}))
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def entries(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "run" / "privacy.jsonl").read_text().splitlines()]


def test_a_secure_run_sums_what_a_plain_one_sums(tmp_path: Path, cache: Path) -> None:
    secure = run(tmp_path / "secure", cache, **{"privacy.fisher-share": 0.5})
    plain = run(tmp_path / "plain", cache, **{"strategy.name": "mean"})
    weights = [
        {lesson["tactic"]: lesson["weight"] for lesson in found["cycles"][1]["lessons"]} for found in (secure, plain)
    ]
    assert weights[0].keys() == weights[1].keys() and weights[0]
    assert [weights[0][name] for name in weights[1]] == pytest.approx(list(weights[1].values()), abs=0.1)
    assert secure["cycles"][1]["accepted"] == 8 and secure["cycles"][1]["uplink_bytes"] < 8192


def test_a_noisy_run_says_what_it_spent(tmp_path: Path, cache: Path) -> None:
    found = run(tmp_path, cache, **NOISY)
    assert [entry["kind"] for entry in entries(tmp_path)] == ["ledger", "round", "spend", "round", "spend"]
    spent = [entry["epsilon"] for entry in found["cycles"]]
    assert spent[0] == 0 < spent[1] < spent[2] <= 8.0
    assert found["private"] and found["privacy"]["epsilon"] == 8.0


@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_noise_without_a_secure_sum(mechanism: str, tmp_path: Path, cache: Path) -> None:
    changed: dict[str, Scalar] = {"privacy.mechanism": mechanism, "strategy.name": f"{mechanism}-mean"}
    found = run(tmp_path, cache, **{**NOISY, **changed})
    assert [entry["kind"] for entry in entries(tmp_path)] == ["ledger", "spend", "spend"]
    assert 0 < found["cycles"][1]["epsilon"] < found["cycles"][2]["epsilon"] <= 8.0
    assert found["cycles"][1]["accepted"] == 8 and not found["cycles"][1]["refused"]


def test_who_trusts_more_has_less_noise(tmp_path: Path, cache: Path) -> None:
    noise = {}
    for mechanism, strategy in (("central", "central-mean"), ("distributed", "secure-mean"), ("local", "local-mean")):
        out = tmp_path / mechanism
        run(out, cache, **{**NOISY, "cycles": 1, "privacy.mechanism": mechanism, "strategy.name": strategy})
        with np.load(out / "run" / "checkpoints" / "cycle-001" / "collect.npz") as kept:
            noise[mechanism] = json.loads(kept["values"].tobytes())["noise"]
    assert noise["central"] < noise["distributed"] < 0.3 * noise["local"]


def test_a_resumed_run_does_not_spend_again(tmp_path: Path, cache: Path) -> None:
    first = run(tmp_path, cache, **NOISY)
    config = RunConfig.from_flat({**SETTINGS, **NOISY, "cache": str(cache), "out": str(tmp_path / "run")})
    run_inprocess(replace(config, resume=True))
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(entries(tmp_path)) == 5
    assert [cycle["version"] for cycle in again["cycles"]] == [cycle["version"] for cycle in first["cycles"]]


@pytest.mark.parametrize("left", [None, 1, 3], ids=["missing", "cut to its first line", "without the last release"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_does_not_go_on_with_a_ledger_that_has_forgotten_a_release(
    finished: bool, left: int | None, tmp_path: Path, cache: Path
) -> None:
    """Of a finished cycle the journal knows the ledger's length, and of one under way the exchanges are on disk."""
    run(tmp_path, cache, **NOISY)
    out = tmp_path / "run"
    if not finished:
        (out / "journal.jsonl").unlink()
        for path in (out / "checkpoints" / "cycle-002").iterdir():
            if path.name != "collect.npz":
                path.unlink()
    ledger = out / "privacy.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.unlink() if left is None else ledger.write_bytes(b"".join(lines[:left]))
    config = RunConfig.from_flat({**SETTINGS, **NOISY, "cache": str(cache), "out": str(out)})
    with pytest.raises(FedoelError, match="does not hold all that this run has spent: put the file back"):
        run_inprocess(replace(config, resume=True))
    ledger.write_bytes(b"".join(lines))
    run_inprocess(replace(config, resume=True))


def test_an_exhausted_budget_ends_training_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    config = RunConfig.from_flat({**SETTINGS, **NOISY, "cache": str(cache), "out": str(tmp_path / "run")})
    ledger = tmp_path / "run" / "privacy.jsonl"
    ledger.parent.mkdir()
    ledger.write_text('{"kind": "ledger", "run": "ab"}\n' + '{"kind": "spend"}\n')
    run_inprocess(config)
    cycles = json.loads((tmp_path / "run" / "summary.json").read_text())["cycles"]
    assert cycles[2]["decision"] == "no-experience" and cycles[2]["refused"] == {"privacy budget exhausted": 1}
    assert cycles[2]["held_out"]["episodes"] == 8


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({**NOISY, "strategy.name": "mean"}, "do not go together"),
        ({**NOISY, "privacy.mechanism": "central", "strategy.name": "local-mean"}, "do not go together"),
        ({"strategy.name": "central-mean"}, "do not go together"),
        ({"clients": 2}, "too few to hide in"),
        ({"privacy.epsilon": 1.0}, "needs a privacy.mechanism"),
        ({"privacy.mechanism": "distributed"}, "a mechanism needs an epsilon"),
        ({"privacy.mechanism": "magic", "privacy.epsilon": 1.0}, "must be one of"),
        ({"privacy.max-dropout": 0.7}, "no threshold"),
    ],
)
def test_runs_that_are_refused(settings: dict[str, Scalar], match: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        run(tmp_path, cache, **settings)
    assert not (tmp_path / "run").exists()
