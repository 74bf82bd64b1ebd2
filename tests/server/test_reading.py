"""Public prompts read in shares: the same answers anywhere, and nothing is read again for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.policies.policy import Policy
from fedoel.policies.torch.model import load_model
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.policies.torch.prefix_cache import Kept
from fedoel.protocol.config import RunConfig
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.learner_registry import make_learner
from fedoel.server.reading import PROMPTS, Answerer, in_shares
from fedoel.server.torch_learner import TorchLearner

from .test_parts import Copying

NUMBER = 2 * PROMPTS + 5


def prompts(number: int = NUMBER) -> list[Situation]:
    commands = ("go north", "take key", "look")
    return [Memory(f"Find {n}.", 5).see(f"-= Room {n % 9} =-\nA room.", commands, 0) for n in range(number)]


def unchanged(policy: Policy) -> Policy:
    return policy


def config_of(base: Path, **more: Any) -> RunConfig:
    return RunConfig.from_flat({
        "policy.base": str(base), "policy.device": "cpu", "policy.lora-layers": 2, "policy.lora-rank": 4, **more,
    })  # fmt: skip


@pytest.mark.parametrize("written", [False, True])
def test_shares_give_the_same_turns_and_states_to_the_bit_wherever_they_are_read(
    tiny_base: Path, tmp_path: Path, written: bool
) -> None:
    config = config_of(tiny_base, **({"policy.decoding": "free", "policy.response-tokens": 3} if written else {}))
    asked = [replace(prompt, open=written) for prompt in prompts()]
    answerer, found = Answerer(config, tmp_path, {}, unchanged, [7]), []
    for workers in (None, Copying()):
        kept = Kept()
        found.append((in_shares(asked, answerer, kept, workers), kept))
    (one, kept), (other, kept_there) = found
    assert [turn.situation for turn in one] == [turn.situation for turn in other]
    assert all(np.array_equal(a.log_probs, b.log_probs) for a, b in zip(one, other, strict=True))
    assert len(kept.segments) == NUMBER + 1  # with the head
    for name in ("rows", "segments"):
        mine, theirs = getattr(kept, name), getattr(kept_there, name)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(value, theirs[key]) for key, value in mine.items())
    if written:
        assert len({turn.situation.choices for turn in one}) > NUMBER / 2, "every prompt has a random stream of its own"
    else:
        whole = TorchPolicy(load_model(config.policy, tmp_path), {}).score(prompts())
        assert all(np.allclose(turn.log_probs, alone, atol=1e-5) for turn, alone in zip(one, whole, strict=True))


def test_a_learner_does_not_read_again_what_was_answered(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(config_of(tiny_base), tmp_path)
    assert isinstance(learner, TorchLearner)
    turns = learner.turns({}, unchanged, prompts(), [0])
    monkeypatch.setattr(learner._model().trunk, "embed", None)
    assert len(learner._states(turns).bottoms.rows) == NUMBER
    learner.forget()
    with pytest.raises(TypeError):
        learner._states(turns)


def test_what_a_learner_forgets_a_policy_from_before_forgets_too(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its last bits would depend on what was played before, and a resumed run would end elsewhere."""
    learner = make_learner(config_of(tiny_base), tmp_path)
    assert isinstance(learner, TorchLearner)
    policy, trunk, read = learner.policy({}), learner._model().trunk, list[int]()
    embed = trunk.embed

    def counted(ids: Sequence[int]) -> Any:
        read.append(len(ids))
        return embed(ids)

    monkeypatch.setattr(trunk, "embed", counted)
    policy.score(prompts())
    everything = sum(read)
    for again in (policy, learner.policy({})):
        learner.forget()
        read.clear()
        again.score(prompts())
        assert sum(read) == everything
    read.clear()
    policy.score(prompts())
    assert 0 < sum(read) < everything, "scenes are shared again"


def test_what_was_kept_for_training_stays_when_the_cache_is_emptied(tiny_base: Path, tmp_path: Path) -> None:
    scenes = load_model(config_of(tiny_base).policy, tmp_path).new_prefix_cache(keep_bottoms=True)
    scenes.prepare([(5, 6, 7)], version=None)
    kept = scenes.kept
    scenes.clear()
    assert kept is not None and len(kept.segments) == 2 and scenes.kept is not None and not scenes.kept.segments
