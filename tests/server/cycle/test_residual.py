"""What a version has left of its teacher's context, and the cycle that begins with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.log_linear import tilted
from fedoel.policies.policy import LogProbs
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.records.events import PhaseFinished
from fedoel.server.cycle import collect
from fedoel.server.cycle.phases import load_phase
from fedoel.server.cycle.residual import NAME, RESIDUAL, share_left
from fedoel.simulations.inprocess import check, run_inprocess

from ...simulations.gates import OpenGate

SMALL: dict[str, Scalar] = {
    "clients": 6, "cycles": 2, "seed": 9000, "games.families": "tidy things=1 final=0 turns=4", "games.per-client": 2,
    "games.held-out": 2, "games.held-out-teacher": 1, "policy.device": "cpu", "policy.threads": 1,
    "policy.lora-layers": 2, "policy.lora-rank": 2, "codec.name": "embedding", "context.max-kl": 0.3,
    "context.residual": True, "distil.steps": 1, "distil.batch": 2, "warm-start.steps": 2, "warm-start.batch": 4,
    "server.public": "prompts", "server.pack": 40, "server.prompts-per-cycle": 16, "server.max-base-kl": 0,
    "trial.contexts": False, "trial.games": 1,
}  # fmt: skip


@pytest.fixture
def config(tiny_base: Path, cache: Path, tmp_path: Path) -> RunConfig:
    places: dict[str, Scalar] = {
        "policy.base": str(tiny_base), "cache": str(cache), "out": str(tmp_path / "run"),
    }  # fmt: skip
    return RunConfig.from_flat(SMALL | places)


def cycles(config: RunConfig) -> list[dict[str, Any]]:
    entries = json.loads((Path(config.out) / "summary.json").read_text())["cycles"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_what_is_left_and_what_was_absorbed_are_the_whole(seed: int, twentieths: int) -> None:
    rng = np.random.default_rng(seed)
    states = [rng.normal(size=rng.integers(2, 6)).astype(np.float32) for _ in range(8)]
    policy: list[LogProbs] = [tilted(scores, np.zeros_like(scores)) for scores in states]
    offsets = [rng.normal(size=len(scores)).astype(np.float32) for scores in states]
    teacher = [tilted(p, added) for p, added in zip(policy, offsets, strict=True)]
    student = [tilted(p, twentieths / 20 * added) for p, added in zip(policy, offsets, strict=True)]
    assert share_left(teacher, student, offsets) == pytest.approx(1 - twentieths / 20)


def test_the_next_cycle_begins_with_what_the_student_has_left(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[PlayRequest] = []
    request = collect.request

    def listen(*arguments: Any) -> PlayRequest:
        asked.append(request(*arguments))
        return asked[-1]

    monkeypatch.setattr(collect, "request", listen)
    run_inprocess(config, make_gate=OpenGate)
    whole = cycles(config)
    left = RESIDUAL.read(load_phase(Path(config.out), 1, NAME))
    assert left.version == whole[1]["version"] and left.share == whole[1]["views"]["residual"] > 0.5  # after one step
    assert [request.context is None for request in asked] == [True, False]
    assert np.array_equal(np.asarray(asked[1].context), left.context.weights)
    assert left.context.kl > 0
    monkeypatch.undo()

    def stop(event: Any) -> None:
        if isinstance(event, PhaseFinished) and (event.cycle, event.phase) == (2, "context"):
            raise KeyboardInterrupt

    stopped = replace(config, out=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        run_inprocess(stopped, stop, make_gate=OpenGate)
    run_inprocess(replace(stopped, resume=True), make_gate=OpenGate)
    assert cycles(stopped) == whole


def test_tactics_absorb_everything(config: RunConfig) -> None:
    flat = config.to_flat() | {"policy.backend": "tactics", "codec.name": "tactics", "policy.base": ""}
    config = RunConfig.from_flat(flat)
    run_inprocess(config, make_gate=OpenGate)
    assert [cycle["views"]["residual"] for cycle in cycles(config)[1:]] == [0, 0]


@pytest.mark.parametrize(
    "changed",
    [{"server.public": "games"}, {"codec.name": "prefix", "server.public": "games"},
     {"policy.decoding": "free", "distil.retention": 0.0}],
    ids=str,
)  # fmt: skip
def test_a_residual_needs_prompts_listed_commands_and_offsets(config: RunConfig, changed: dict[str, Scalar]) -> None:
    with pytest.raises(ConfigError, match=r"context\.residual needs server\.public 'prompts'"):
        check(RunConfig.from_flat(config.to_flat() | changed))
