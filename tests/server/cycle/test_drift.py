"""A candidate that has moved too far from the base model is refused before it is tried, whatever it would win."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

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
    """A learner all of whose versions have drifted by 0.25."""

    def drift(self, adapter: Adapter) -> float:
        return 0.25


def bounded(run: Run, bound: float) -> Run:
    return replace(run, config=replace(run.config, server=replace(run.config.server, max_base_kl=bound)))


def test_a_candidate_beyond_the_bound_is_refused_untried(server: CycleServer) -> None:
    run, state = replace(server.run, learner=Far()), server.state
    candidate = Trained("candidate", {"weights": state.version.adapter["weights"] + 1})
    near = judge(bounded(run, 0.26), state, 1, candidate)
    assert near.tried and DRIFTED not in near.verdict.reason
    far = judge(bounded(run, 0.24), state, 2, candidate)
    assert not far.tried and not far.verdict.passed
    assert (
        far.verdict.reason == f"{DRIFTED}: mean KL 0.250 nats a token on neutral text, and server.max-base-kl is 0.24"
    )
    assert judge(bounded(run, 0), state, 3, candidate).tried, "0 is no bound"


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
