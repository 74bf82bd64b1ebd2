"""A candidate that does less than its base model outside of games is refused before it is tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.config import PolicyConfig, RunConfig, ServerConfig
from fedoel.server.cycle.abilities import lost
from fedoel.server.cycle.distil import Trained
from fedoel.server.cycle.judge import judge
from fedoel.server.cycle.run import Run
from fedoel.server.cycle.server import CycleServer
from fedoel.server.learner import LOST, Adapter
from fedoel.server.probes import instructions
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.server.torch_learner import TorchLearner


class Dull(TacticsLearner):
    """A learner whose versions lose with their largest weight: at 1, perplexity doubles and a half is followed."""

    asked: int = 0

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        type(self).asked += 1
        weight = float(np.abs(adapter["weights"]).max())
        return {
            "perplexity": 20 * (1 + weight), "base_perplexity": 20.0,
            "instructions": 0.4 * (1 - weight / 2), "base_instructions": 0.4,
        }  # fmt: skip


def bounded(run: Run, **bounds: float) -> Run:
    server = replace(run.config.server, max_base_kl=0, **bounds)  # type: ignore[arg-type]
    return replace(run, config=replace(run.config, server=server))


@pytest.mark.parametrize(("bounds", "reason"), [
    ({"max_perplexity": 1.9}, "perplexity 40.0 on neutral text, the base model's is 20.0, and server.max-perplexity "
     "is 1.9"),
    ({"min_instructions": 0.6}, "20.0% of the instructions followed, by the base model 40.0%, and "
     "server.min-instructions is 0.6"),
    ({"max_perplexity": 2.1, "min_instructions": 0.4}, ""),
])  # fmt: skip
def test_a_candidate_that_lost_more_than_its_bounds_is_refused_untried(
    server: CycleServer, bounds: dict[str, float], reason: str
) -> None:
    candidate = Trained("candidate", {"weights": np.ones_like(server.state.version.adapter["weights"])})
    run = bounded(replace(server.run, learner=Dull()), **bounds)
    run = replace(run, config=replace(run.config, distil=replace(run.config.distil, halvings=0)))
    judged = judge(run, server.state, 1, candidate)
    assert judged.tried is not bool(reason)
    assert not reason or (not judged.verdict.passed and judged.verdict.reason == f"{LOST}: {reason}")


def test_half_the_way_back_is_tried_again(server: CycleServer) -> None:
    start = server.state.version
    at_zero = replace(server.state, version=replace(start, adapter={"weights": start.adapter["weights"] * 0}))
    candidate = Trained("candidate", {"weights": np.ones_like(start.adapter["weights"])})
    judged = judge(bounded(replace(server.run, learner=Dull()), max_perplexity=1.6), at_zero, 1, candidate)
    assert judged.tried and judged.verdict.reason.startswith("1/2 of the way to the candidate")


def test_without_bounds_nothing_is_probed_and_without_a_language_model_nothing_is_lost(server: CycleServer) -> None:
    candidate, Dull.asked = Trained("candidate", server.state.version.adapter), 0
    assert not lost(bounded(replace(server.run, learner=Dull())), 1, "abilities", candidate) and not Dull.asked
    assert not lost(bounded(server.run, max_perplexity=1e-6, min_instructions=1.0), 1, "abilities", candidate)


def test_what_cannot_be_measured_is_refused(server: CycleServer) -> None:
    class Broken(Dull):
        def probe(self, adapter: Adapter) -> Mapping[str, float]:
            return {"perplexity": math.nan, "base_perplexity": 20.0}

    run = bounded(replace(server.run, learner=Broken()), max_perplexity=5)
    assert LOST in lost(run, 1, "abilities", Trained("candidate", server.state.version.adapter))


def test_the_language_model_follows_the_instructions_once_for_gate_and_report(
    server: CycleServer, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [0.5, 0.2]  # of the base model, and then of the candidate
    monkeypatch.setattr(instructions, "instructions_followed", lambda *_: shares.pop(0))
    policy = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    config = RunConfig(policy=policy, server=ServerConfig(min_instructions=0.9))
    learner = TorchLearner(config, tmp_path)
    run = bounded(replace(server.run, learner=learner), min_instructions=0.9)
    moved = {name: array + np.float32(0.1) for name, array in learner._model().fresh.items()}
    reason = lost(run, 1, "abilities", Trained("moved", moved))
    assert reason.startswith(f"{LOST}: 20.0% of the instructions followed, by the base model 50.0%")
    assert learner.probe(moved)["instructions"] == 0.2 and not shares
    assert lost(replace(run, learner=Dull()), 1, "abilities", Trained("moved", moved)) == reason, "read back from disk"
