"""A step of training in parts: gradients that add up, wherever they are computed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedoel.policies.torch.model import TorchModel, load_model
from fedoel.protocol.config import RunConfig
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.distillation.anchor import Anchor
from fedoel.server.distillation.job import Job, gradients_of
from fedoel.server.distillation.optimise import Schedule, optimise
from fedoel.server.distillation.parts import PARTS, Part, gradient, parts_of, put_in_training, weights_in_training
from fedoel.server.distillation.training_states import TrainingStates

from .test_sampled_answers import by_letter


class Copying:
    """Processes as workers see them: every share and every result is pickled, and the last share is computed first."""

    processes = 2

    def __init__(self) -> None:
        self.sizes = list[int]()

    def map(self, function: Callable[[Any], Any], shares: Sequence[Any]) -> list[Any]:
        sent = [pickle.dumps((function, share)) for share in shares]
        self.sizes += map(len, sent)
        found = [pickle.dumps(call(share)) for call, share in map(pickle.loads, reversed(sent))]
        return [pickle.loads(result) for result in reversed(found)]


def states(number: int = 9) -> list[Situation]:
    commands = ("go north", "take key", "look")
    return [Memory(f"Find {n}.", 5).see(f"-= Room {n % 4} =-\nA room.", commands, 0) for n in range(number)]


@pytest.fixture
def config(tiny_base: Path) -> RunConfig:
    return RunConfig.from_flat({
        "policy.base": str(tiny_base), "policy.device": "cpu", "policy.lora-layers": 2, "policy.lora-rank": 4,
    })  # fmt: skip


def job_of(config: RunConfig, cache: Path, model: TorchModel, kind: str = "listed") -> Job:
    rng = np.random.default_rng(0)
    turns = [Turn(state, np.log(rng.dirichlet(np.ones(3))).astype(np.float32), 0, 0.0) for state in states()]
    passages = Anchor.prepare(model, "The river runs to the sea. " * 40, ["Say hello."]).groups
    if kind == "listed":
        return Job(config, cache, {}, turns, 0, TrainingStates.prepare(model, states()).bottoms, passages)
    job = Job(config, cache, {}, turns, 0, None, passages)
    targets = [turn.log_probs for turn in turns]
    return replace(job, targets=targets, apply_context=[by_letter] * len(turns)) if kind == "sampled" else job


@given(st.integers(0, 5), st.lists(st.integers(0, 99), max_size=30))
def test_parts_hold_the_batch_and_are_nearly_equal(step: int, batch: list[int]) -> None:
    parts = parts_of(step, batch)
    assert [index for part in parts for index in part.batch] == batch
    assert len(parts) == min(PARTS, len(batch))
    sizes = {len(part.batch) for part in parts}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len({part.name for part in parts}) == len({tuple(part.seed(7)) for part in parts}) == len(parts)


def test_the_gradients_of_the_parts_add_up_to_that_of_the_batch(config: RunConfig, tmp_path: Path) -> None:
    model = load_model(config.policy, tmp_path)
    _, loss = job_of(config, tmp_path, model).built(model)
    batch = range(8)
    whole = gradient(model, loss, Part(0, 0, tuple(batch)))
    halves = [gradient(model, loss, part) for part in parts_of(0, batch)]
    assert whole.loss == pytest.approx(np.mean([half.loss for half in halves]), rel=1e-5)
    assert np.allclose(whole.values, np.mean([half.values for half in halves], axis=0), atol=1e-6)
    assert np.abs(whole.values).max() > 1e-4


def test_what_a_process_computed_before_changes_no_bit(config: RunConfig, tmp_path: Path) -> None:
    model = load_model(config.policy, tmp_path)
    _, loss = job_of(config, tmp_path, model).built(model)
    part = Part(3, 1, (1, 4, 5))
    first = gradient(model, loss, part)
    gradient(model, loss, Part(3, 0, (0, 1, 8, 5)))
    assert np.array_equal(gradient(model, loss, part).values, first.values)


def test_weights_in_training_go_to_another_process_and_back(config: RunConfig, tmp_path: Path) -> None:
    model = load_model(config.policy, tmp_path)
    model.load({})
    before = weights_in_training(model)
    put_in_training(model, before + 1)
    assert np.array_equal(weights_in_training(model), before + 1)
    assert not model.version, "an adapter is loaded anew from here"
    model.load({})
    assert np.array_equal(weights_in_training(model), before)


@pytest.mark.parametrize("kind", ["listed", "imitated", "sampled"])
def test_several_processes_make_the_adapter_of_one(config: RunConfig, tmp_path: Path, kind: str) -> None:
    if kind != "listed":
        config = replace(config, policy=replace(config.policy, decoding="free", response_tokens=3))
    model, made, copying = load_model(config.policy, tmp_path), [], Copying()
    for workers in (None, copying):
        job = job_of(config, tmp_path, model, kind)
        rows, loss = job.built(model)
        with gradients_of(job, model, loss, workers) as gradients:
            model.load({})
            optimise(model, rows, gradients, Schedule(4, 4, 1e-2, anchor=2.0), 0)
        made.append(model.adapter())
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not np.array_equal(made[0][name], model.fresh[name]) for name in made[0])
    weights = weights_in_training(model).nbytes
    assert len(copying.sizes) == 4 * PARTS + 2  # of every second step's anchor
    assert max(copying.sizes) < weights + 2_000, "a share holds the weights; the job is read from a file"


def test_the_jobs_file_goes_with_the_training(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = load_model(config.policy, tmp_path)
    job = job_of(config, tmp_path, model)
    with gradients_of(job, model, job.built(model)[1], Copying()):
        [folder] = tmp_path.glob("fedoel-job-*")
        assert (folder.stat().st_mode & 0o777) == 0o700
        stored = torch.load(folder / "job.pt", weights_only=False)
        assert [turn.situation for turn in stored.turns] == states()
    assert not list(tmp_path.glob("fedoel-job-*"))
