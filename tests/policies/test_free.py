"""Free decoding: responses are those of the plain model, and do not depend on batching or caching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fedoel.codecs.prefix import SPACE as PREFIX
from fedoel.codecs.steering import SPACE as STEERING
from fedoel.games.player import play_episodes
from fedoel.policies.abilities import ANSWERS, abilities_of, behind
from fedoel.policies.backend import TorchBackend
from fedoel.policies.routed import routed
from fedoel.policies.spaces import ControlVector, SoftPrompt
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.free import Decoding, FreePolicy
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.prompts import Style

from .test_torch_policy import situations

ADVICE = "Advice: take what shines.\n"


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    return TorchModel(load_base(config, tmp_path), 512, Style(free=True))


def streams(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(place) for place in range(count)]


def test_it_writes_what_a_plain_model_would_write(model: TorchModel, tiny_base: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    asked = situations()
    answers = FreePolicy(TorchPolicy(model, {}), Decoding(1e-4, 6)).respond(
        list(zip(asked, streams(len(asked)), strict=True))
    )
    for row, answer in zip(model.tokenizer.encode(asked), answers, strict=True):
        tokens = [*model.tokenizer.head, *row.scene, *row.moment]
        for written in answer.tokens:  # at this temperature decoding is greedy
            with torch.inference_mode():
                wanted = int(reference(torch.tensor([tokens])).logits[0, -1].argmax())
            assert written == wanted
            tokens.append(written)
        assert answer.text == model.tokenizer.decode(answer.tokens)
        assert len(answer.tokens) == 6 or answer.tokens[-1] == model.tokenizer.end_token


def test_a_policy_says_what_its_backend_says_and_no_more_once_it_has_a_context(model: TorchModel) -> None:
    bare = TorchPolicy(model, {})
    free = FreePolicy(bare, Decoding(1.0, 4))
    assert bare.abilities == TorchBackend.abilities and free.abilities == {*bare.abilities, ANSWERS}
    assert abilities_of(routed([free.behind(ADVICE), free.behind("Other.\n")])) == {ANSWERS}
    assert abilities_of(routed([bare.behind(ADVICE), bare.behind("Other.\n")])) == frozenset()
    for policy in (bare.behind(ADVICE), free.behind(ADVICE)):
        with pytest.raises(ConfigError, match="a context in the prompt"):
            behind(policy, ADVICE)


@pytest.mark.parametrize("context", ["none", "words", "prefix", "steering"])
def test_scores_beside_the_response_are_the_policys_scores(model: TorchModel, context: str) -> None:
    rng, policy = np.random.default_rng(0), FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 4))
    vector = rng.normal(0, 0.1, STEERING.dimension).astype(np.float32)
    made = {
        "none": lambda: policy,
        "words": lambda: policy.behind(ADVICE),
        "prefix": lambda: policy.behind(SoftPrompt(PREFIX, rng.normal(0, 1, PREFIX.dimension).astype(np.float32))),
        "steering": lambda: policy.steered(ControlVector(STEERING, vector)),
    }[context]()
    asked = situations()
    answers = made.respond(list(zip(asked, streams(len(asked)), strict=True)))
    for answer, scored, bare in zip(answers, made.score(asked), policy.score(asked), strict=True):
        assert np.allclose(answer.log_probs, scored, atol=1e-5)
        assert context == "none" or len(scored) == 1 or not np.allclose(scored, bare, atol=1e-4)


def test_an_answer_does_not_depend_on_the_batch(model: TorchModel) -> None:
    policy, asked = FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 5)), situations()
    together = policy.respond(list(zip(asked, streams(len(asked)), strict=True)))
    alone = [policy.respond([pair])[0] for pair in zip(asked, streams(len(asked)), strict=True)]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]


def test_copies_of_a_row_are_read_as_if_each_were_alone(model: TorchModel) -> None:
    rows, copies, rng = model.tokenizer.encode(situations()[:2]), [3, 40], np.random.default_rng(0)
    # The last copies go on after the others have ended, and the forty write more than they share.
    texts = [[rng.integers(5, 100, rng.integers(1, 5)).tolist() for _ in range(sum(copies))] for _ in range(3)]
    going = [range(43), range(43), [0, 2, *range(30, 43)]]
    policy = TorchPolicy(model, {})
    with torch.inference_mode():
        with policy.open_decoder(rows) as decoder:
            decoder.extend(range(2), [row.moment for row in rows])
            decoder.fork(copies)
            together = [decoder.extend(some, [text[i] for i in some]) for some, text in zip(going, texts, strict=True)]
        for index in (0, 2, 3, 29, 42):
            with policy.open_decoder([rows[index >= 3]]) as decoder:
                decoder.extend([0], [rows[index >= 3].moment])
                for some, text, hidden in zip(going, texts, together, strict=True):
                    if index in some:
                        alone = decoder.extend([0], [text[index]])[0]
                        assert torch.allclose(alone, hidden[list(some).index(index)], atol=1e-4)


def test_an_answer_that_is_cut_off_is_not_finished(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, asked = FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 2)), situations()
    ends = frozenset(range(0, model.base.head.shape[0], 3))  # a random model hardly ever ends by itself
    monkeypatch.setattr(type(model.tokenizer), "end_tokens", ends)
    pairs = [(situation, np.random.default_rng(seed)) for seed in range(8) for situation in asked]
    answers = [*policy.respond(pairs), *(answer for some in policy.sample(pairs) for answer in some)]
    assert all(answer.finished is (answer.tokens[-1] in ends) for answer in answers)
    assert {(len(answer.tokens), answer.finished) for answer in answers} == {(1, True), (2, True), (2, False)}


def test_the_likelihood_of_a_text_is_that_of_its_tokens_and_its_end(model: TorchModel, tiny_base: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    policy, texts = FreePolicy(TorchPolicy(model, {}), Decoding(0.5, 4)), ("go", "take the red lamp and go", "no", "")
    ends, asked = sorted(model.tokenizer.end_tokens), situations()[:3]
    weighed = policy.log_likelihoods([(situation, texts) for situation in asked])
    assert policy.log_likelihoods([(asked[0], ())])[0].shape == (0,)
    for row, logs in zip(model.tokenizer.encode(asked), weighed, strict=True):
        for text, log in zip(texts, logs, strict=True):
            tokens, prompt = model.tokenizer.ids(text), [*model.tokenizer.head, *row.scene, *row.moment]
            if len(tokens) > 4:
                assert log == -np.inf, "an answer is cut off before"
                continue
            with torch.inference_mode():
                logits = reference(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 :] / 0.5
            said = logits.log_softmax(-1)
            expected = sum(float(said[n, token]) for n, token in enumerate(tokens))
            expected += float(said[-1, ends].logsumexp(-1)) if len(tokens) < 4 else 0.0
            assert log == pytest.approx(expected, abs=1e-4)


def test_the_style_is_part_of_the_version(model: TorchModel, tiny_base: Path, tmp_path: Path) -> None:
    walked = TorchModel(model.base, 512)
    unlisted = TorchModel(model.base, 512, Style(free=True, listed=False))
    versions = {TorchPolicy(each, {}).version for each in (model, walked, unlisted)}
    assert len(versions) == 3


def test_situations_are_routed_among_contexts(model: TorchModel) -> None:
    policy = FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 3))
    members = [policy.behind(f"Advice {n}.\n") for n in range(3)]
    whole, asked = routed(members), situations()
    for situation, scored in zip(asked, whole.score(asked), strict=True):
        own = [member.score([situation])[0] for member in members]
        assert any(np.allclose(scored, other, atol=1e-5) for other in own)
    assert routed(members[:1]) is members[0]


def test_it_answers_questions_and_repeats(model: TorchModel) -> None:
    policy = TorchPolicy(model, {})
    asked = [("What did you learn?", np.random.default_rng(1)), ("Say more.", np.random.default_rng(2))]
    texts = policy.tell(asked, 7)
    assert len(texts) == 2
    again = [policy.tell([(text, np.random.default_rng(seed))], 7)[0] for seed, (text, _) in enumerate(asked, 1)]
    assert texts == again


def test_a_game_is_played_by_responses(model: TorchModel, tmp_path: Path) -> None:
    spec = GameSpec.parse("frozen-lake turns=6")
    policy = FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 4))
    (played,) = play_episodes(policy, [(spec, 3)], [0], tmp_path)
    # A random model writes no command: two of those in a row end the game.
    assert [turn.valid for turn in played.turns] == [False, False]
    assert played.turns[0].response
    assert 2 <= played.response_tokens <= 8
