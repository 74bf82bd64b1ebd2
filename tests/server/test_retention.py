"""What the student does with the context is kept, also where only the model knows what a context does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedoel.codecs.prefix import SPACE as PREFIX
from fedoel.codecs.steering import SPACE as STEERING
from fedoel.codecs.tactics.coordinates import DIMENSION as TACTICS
from fedoel.codecs.tactics.policy import TiltedPolicy
from fedoel.policies.abilities import behind, steered
from fedoel.policies.policy import LogProbs, Policy
from fedoel.policies.routed import ApplyContext, call_grouped, routed, with_contexts
from fedoel.policies.spaces import ControlVector, SoftPrompt
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.free import Decoding, FreePolicy
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.prompts import TREE_STYLE, Style
from fedoel.server.distillation.free_text import TextDistillation
from fedoel.server.distillation.losses import TokenLoss, reverse_kl
from fedoel.server.distillation.opcd import towards, train, with_retention
from fedoel.server.distillation.optimise import Schedule, optimise
from fedoel.server.distillation.parts import Part, gradients_here
from fedoel.server.distillation.retention import Retention
from fedoel.server.distillation.training_states import TrainingStates

from .test_opcd import situations

ADVICE = "Advice: zzzz zzzz zzzz zzzz zzzz zzzz.\n"
DECODING = Decoding(1.0, 4)
rng = np.random.default_rng(7)
PROMPT = SoftPrompt(PREFIX, rng.normal(0, 1, PREFIX.dimension).astype(np.float32))
VECTOR = ControlVector(STEERING, rng.normal(0, 2.4, STEERING.dimension).astype(np.float32))
CONTEXTS: dict[str, ApplyContext] = {
    "words": lambda policy: behind(policy, ADVICE),
    "prefix": lambda policy: behind(policy, PROMPT),
    "steering": lambda policy: steered(policy, VECTOR),
    "several": lambda policy: routed([behind(policy, f"Advice: {letter * 20}.\n") for letter in "xyz"]),
}


def drawn(name: str, count: int = 12) -> list[ApplyContext]:
    """The context of each state: the same one, or another in every state."""
    chosen = [CONTEXTS[name]] if name in CONTEXTS else list(CONTEXTS.values())
    return [chosen[place % len(chosen)] for place in range(count)]


def score(policy: Policy, unders: list[ApplyContext]) -> list[LogProbs]:
    return call_grouped(with_contexts(policy, unders), situations(), lambda each, own: each.score(own))


def make(tiny_base: Path, cache: Path, style: Style = TREE_STYLE) -> TorchModel:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    model = TorchModel(load_base(config, cache), 512, style)
    rng = np.random.default_rng(1)
    model.load({name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.fresh.items()})
    return model


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    return make(tiny_base, tmp_path)


@pytest.mark.parametrize("name", [*CONTEXTS, "mixed"])
def test_the_student_with_the_context_is_the_policy_with_it_and_can_be_trained(model: TorchModel, name: str) -> None:
    states, under = situations(), drawn(name)
    asked = score(TorchPolicy(model, model.adapter()), under)
    found = Retention(under, 1.0).commands(TrainingStates.prepare(model, states), Part(0, 0, tuple(range(12))))
    assert all(np.allclose(mine.detach().numpy(), theirs, atol=1e-5) for mine, theirs in zip(found, asked, strict=True))
    assert not np.allclose(asked[0], TorchPolicy(model, model.adapter()).score(states)[0], atol=1e-3)
    gradients = torch.autograd.grad(found[0][0] + found[7][1], model.trained)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", [*CONTEXTS, "mixed"])
def test_retention_keeps_the_student_with_the_context_near_the_teacher(model: TorchModel, name: str) -> None:
    states, under, start, noted = situations(), drawn(name), model.adapter(), list[float]()
    # Elsewhere than where the context leads: so that what is learned without it spoils what is done with it.
    told, kept = (
        [np.log(np.array([0.9, *[0.025] * 4], np.float32)) for _ in states],
        score(TorchPolicy(model, start), under),
    )
    apart = []
    for weight in (0.0, 4.0):
        model.load(start)
        retained = Retention(under, weight, 14), towards(kept, reverse_kl)
        objective = with_retention(told, None, weight)
        prepared, schedule = TrainingStates.prepare(model, states), Schedule(20, 6, 2e-2)
        history = train(prepared, objective, schedule, 0, retained=retained)
        noted += [recorded["with_context"] for recorded in history.recorded if recorded]
        scored = score(TorchPolicy(model, model.adapter()), under)
        apart.append(np.mean([(np.exp(s) * (s - t)).sum() for s, t in zip(scored, kept, strict=True)]))
    assert apart[1] < 0.5 * apart[0]
    # Six steps of the first training, in which it only looked on, and all of the second.
    assert len(noted) == 6 + 20
    assert np.mean(noted[:6]) == pytest.approx(apart[0], rel=0.5)


def outside(policy: Policy) -> Policy:
    """A context that works on a policy's answers from outside."""
    return TiltedPolicy(policy, np.linspace(-1, 1, TACTICS).astype(np.float32))


def test_looking_on_changes_nothing(model: TorchModel) -> None:
    states, start, made = situations(), model.adapter(), []
    told = [np.log(np.array([0.9, *[0.025] * 4], np.float32)) for _ in states]
    for under in ([], drawn("words"), drawn("mixed"), [outside] * 12):
        model.load(start)
        retained = (Retention(under, 0.0), towards(told, reverse_kl)) if under else None
        train(
            TrainingStates.prepare(model, states), towards(told, reverse_kl), Schedule(4, 6, 1e-2), 0, retained=retained
        )
        made.append(model.adapter())
    assert all(np.array_equal(made[0][name], other[name]) for other in made[1:] for name in start)


@pytest.mark.parametrize("name", ["words", "mixed"])
def test_retention_of_text_that_is_written_freely(tiny_base: Path, tmp_path: Path, name: str) -> None:
    model, states, under = make(tiny_base, tmp_path, Style(free=True)), situations(6), drawn(name, 6)
    start, losses = model.adapter(), TokenLoss(top_k=0)
    teachers, first, last = with_contexts(FreePolicy(TorchPolicy(model, start), DECODING), under), [], []
    for weight in (0.0, 3.0):
        model.load(start)
        retention = Retention(under, weight)
        text = TextDistillation(model, states, teachers, DECODING, losses, 0, retention=retention)
        history = optimise(model, text.rows, gradients_here(model, text.loss_of), Schedule(20, 6, 2e-2), 0)
        noted = [recorded["with_context"] for recorded in history.recorded]
        assert len(noted) == 20
        first.append(noted[0])
        last.append(np.mean(noted[-6:]))
    # Before anything is learned, the student with the context is the teacher.
    assert max(map(abs, first)) < 1e-5
    assert 0 <= last[1] < 0.5 * last[0]
