"""The comparison with TRL, as far as it can be tested without TRL."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.situation import Memory, Situation

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
steps = {steps}
def say(event, **more): print(json.dumps(dict(event=event, **more)), flush=True)
say("loaded", versions={{}})
sys.stdin.readline()
for turn in (1, 2):
    say("ready")
    sys.stdin.readline()
    for _ in range(steps): say("step")
    say("turn", losses=[0.5] * steps)
sys.stdin.readline()
"""


def module(name: str) -> Any:
    """Import a benchmark, which is a script and belongs to no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return module("trl_distillation")


def measured(turn: float, above: float, whole: float) -> dict[str, Any]:
    steps = [turn / 4] * 6
    return {"turns": [turn, turn, 1.1 * turn], "prepared": [turn / 2] * 3, "steps": steps, "losses": [0.1] * 7,
            "loaded": whole - above, "peak": whole, "versions": {}}  # fmt: skip


def results(*, theirs: dict[str, Any]) -> dict[str, Any]:
    arms = {"fedoel": measured(4.0, 100, 1000), "trl-sdft": theirs}
    return {"settings": {"steps": 2, "batch": 12}, "arms": arms}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--arms", "fedoel,trl-sfdt"], "unknown arm 'trl-sfdt'"),
        (["--arms", "trl-sdft,fedoel"], "fedoel's first"),
        (["--arms", "fedoel,trl-sdft,trl-sdft"], "each once"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--python", "/nowhere/python"], "/nowhere/python cannot be run"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    benchmark: Any, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(words)
    assert says in capsys.readouterr().err


def test_an_interpreter_without_trl_is_told_how_to_get_it(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit):
        benchmark.main(["--python", str(python)])
    said = capsys.readouterr().err
    assert "has no TRL" in said and "pip install trl==" in said


def test_the_pins_are_those_of_the_docstring(benchmark: Any) -> None:
    assert f"/tmp/trl/bin/pip install {benchmark.PINS}" in benchmark.__doc__


def test_the_table_compares_turn_by_turn(benchmark: Any) -> None:
    lines = benchmark.table(results(theirs=measured(20.0, 450, 1500))).splitlines()
    assert lines[2].split(" | ")[1:] == ["6.00", "1.0 (1.0-1.0)", "2.00", "100", "1.0", "1000", "1.0 |"]
    assert lines[3].split(" | ")[1:] == ["1.20", "5.0 (5.0-5.0)", "10.00", "450", "4.5", "1500", "1.5 |"]
    assert "in every turn: yes" in lines[5] and "yes above the model, no in all" in lines[5]
    assert lines[6] == "fedoel spends 50% of a turn before its first step."


def test_a_claim_that_fails_once_is_not_kept(benchmark: Any) -> None:
    slow = measured(20.0, 390, 4000)
    slow["turns"][1] = 11.9
    verdict = benchmark.table(results(theirs=slow)).splitlines()[5]
    assert "in every turn: no" in verdict and "no above the model, yes in all" in verdict


def test_the_committed_table_is_that_of_the_committed_results(benchmark: Any) -> None:
    folder = ROOT / "benchmarks" / "results" / "trl"
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert benchmark.table(kept) + "\n" == (folder / "table.md").read_text(encoding="utf-8")
    assert all(len(arm["turns"]) >= 3 for arm in kept["arms"].values())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_a_side_is_timed_and_its_steps_counted(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "HERE", tmp_path)
    (tmp_path / "trl_distillation_theirs.py").write_text(CHILD.format(steps=2))
    side = benchmark.Side("trl-sdft", sys.executable, tmp_path / "task.json")
    try:
        side.turn(2, last=False, counted=False)
        side.turn(2, last=True)
        seen = side.measured
        assert len(seen.turns) == 1 and len(seen.steps) == 2 and len(seen.losses) == 4
        assert seen.turns[0] >= sum(seen.steps) and 0 < seen.loaded <= seen.peak < 1000
        with pytest.raises(benchmark.Unusable, match="ended too early"):
            side.turn(2, last=True)
    finally:
        side.close()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_a_side_that_skips_a_step_is_not_believed(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "HERE", tmp_path)
    (tmp_path / "trl_distillation_theirs.py").write_text(CHILD.format(steps=1))
    side = benchmark.Side("trl-sdft", sys.executable, tmp_path / "task.json")
    try:
        with pytest.raises(benchmark.Unusable, match="1 steps, not 2"):
            side.turn(2, last=False)
    finally:
        side.close()


def test_our_side_starts_as_far_from_the_teacher_as_the_context_moves_it(tiny_base: Path, tmp_path: Path) -> None:
    from fedoel.policies.torch.policy import TorchPolicy

    memory, text = Memory("take the coin", 6), "-= Hall =-\nA coin."
    situation = memory.see(text, ("go east", "look", "take coin"), 0)
    memory.do("look")
    later = memory.see(text, ("go east", "look", "take coin"), 1)
    ours, fields = module("trl_distillation_ours"), json.loads(json.dumps([written(s) for s in (situation, later)]))
    assert [ours.situation_of(each) for each in fields] == [situation, later]
    context = "Advice:\n- do: take\n" * 3
    task = {"model": str(tiny_base), "scratch": str(tmp_path), "threads": 1, "rank": 4, "layers": 2, "batch": 2,
            "learning_rate": 1e-3, "context": context}  # fmt: skip
    side, said = ours.ActionTree(task), list[str]()
    bare = TorchPolicy(side.model, {})
    pairs = zip(bare.score([situation, later]), bare.behind(context).score([situation, later]), strict=True)
    expected = np.mean([(np.exp(student) * (student - teacher)).sum() for student, teacher in pairs])
    losses = side.turn([{"situation": each} for each in fields], 1, said.append)
    assert said == ["prepared", "step"] and expected > 1e-5
    assert losses == [pytest.approx(expected, rel=1e-2)]
    assert side.adapter and any((side.adapter[name] != fresh).any() for name, fresh in side.model.fresh.items())


def written(situation: Situation) -> dict[str, Any]:
    return {**asdict(situation), "done": sorted(situation.done)}


def test_their_side_knows_nothing_of_ours() -> None:
    source = (ROOT / "benchmarks" / "trl_distillation_theirs.py").read_text(encoding="utf-8")
    names = [node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import) for alias in n.names]
    assert names and not [name for name in names if name.startswith(("fedoel", "trl_distillation"))]


def test_arms_are_known_by_the_same_names(benchmark: Any) -> None:
    assert set(module("trl_distillation_ours").ARMS) == set(benchmark.OURS)
    assert set(module("trl_distillation_theirs").TRAINERS) == set(benchmark.THEIRS)
