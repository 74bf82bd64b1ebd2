"""A candidate that has moved too far from the base model is refused before it is tried, whatever it would win."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.server.cycle.distil import Trained
from fedoel.server.cycle.drift import drifted
from fedoel.server.cycle.judge import judge
from fedoel.server.cycle.run import Run
from fedoel.server.cycle.server import CycleServer
from fedoel.server.learner import DRIFTED, Adapter, Drifting
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.server.torch_learner import TorchLearner


class Far(TacticsLearner):
    """A learner whose versions drift by a quarter of their largest weight."""

    def drift(self, adapter: Adapter) -> float:
        return float(np.abs(adapter["weights"]).max()) / 4


def bounded(run: Run, bound: float) -> Run:
    return replace(run, config=replace(run.config, server=replace(run.config.server, max_base_kl=bound)))


def without_halves(run: Run) -> Run:
    return replace(run, config=replace(run.config, distil=replace(run.config.distil, halvings=0)))


def test_a_candidate_beyond_the_bound_is_refused_untried(server: CycleServer) -> None:
    run, state = without_halves(replace(server.run, learner=Far())), server.state
    candidate = Trained("candidate", {"weights": np.ones_like(state.version.adapter["weights"])})
    near = judge(bounded(run, 0.26), state, 1, candidate)
    assert near.tried and DRIFTED not in near.verdict.reason
    far = judge(bounded(run, 0.24), state, 2, candidate)
    assert not far.tried and not far.verdict.passed
    assert (
        far.verdict.reason == f"{DRIFTED}: mean KL 0.250 nats a token on neutral text, and server.max-base-kl is 0.24"
    )
    assert judge(bounded(run, 0), state, 3, candidate).tried, "0 is no bound"


@pytest.mark.parametrize(("bound", "reason"), [
    (0.13, "1/2 of the way to the candidate"),
    (0.12, f"1/2 of the way to the candidate: {DRIFTED}: mean KL 0.125 nats a token"),
])  # fmt: skip
def test_a_candidate_that_drifted_is_tried_again_half_as_far_away(
    server: CycleServer, bound: float, reason: str
) -> None:
    start = server.state.version
    at_zero = replace(server.state, version=replace(start, adapter={"weights": start.adapter["weights"] * 0}))
    candidate = Trained("candidate", {"weights": np.ones_like(start.adapter["weights"])})
    judged = judge(bounded(replace(server.run, learner=Far()), bound), at_zero, 1, candidate)
    assert judged.verdict.reason.startswith(reason) and judged.tried is (bound > 0.125)
    assert np.all(judged.candidate.adapter["weights"] == 0.5)


def test_a_run_without_a_language_model_has_nothing_to_drift_from(server: CycleServer) -> None:
    assert not isinstance(server.run.learner, Drifting)
    assert not drifted(bounded(server.run, 1e-9), 1, "drift", Trained("any", server.state.version.adapter))


def test_drift_is_measured_with_the_language_model_once(server: CycleServer, tiny_base: Path, tmp_path: Path) -> None:
    policy = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    learner = TorchLearner(RunConfig(policy=policy), tmp_path)
    fresh = learner._model().fresh
    rng = np.random.default_rng(0)
    moved = {name: rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in fresh.items()}
    run = bounded(replace(server.run, learner=learner), 1e-6)
    assert not drifted(run, 1, "drift", Trained("same", fresh))
    assert DRIFTED in (reason := drifted(run, 2, "drift", Trained("moved", moved)))
    assert drifted(replace(run, learner=Far()), 2, "drift", Trained("moved", moved)) == reason, "read back from disk"
