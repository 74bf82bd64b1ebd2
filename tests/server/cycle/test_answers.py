"""A candidate whose free answers to public prompts are too often invalid or too long is refused before it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.make_prompts import pack_for
from fedoel.policies.abilities import ANSWERS
from fedoel.policies.policy import Answer
from fedoel.protocol.config import PolicyConfig, RunConfig, ServerConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.prompt_pack import read_pack
from fedoel.protocol.situation import Situation
from fedoel.server.app import check
from fedoel.server.cycle.answers import MOST_PROMPTS, WRITTEN, check_bounds, unfit
from fedoel.server.cycle.distil import Trained
from fedoel.server.cycle.judge import judge
from fedoel.server.cycle.run import Run
from fedoel.server.cycle.server import CycleServer
from fedoel.server.learner import UNFIT, Adapter
from fedoel.server.public.prompts import PromptsPublic
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.server.torch_learner import TorchLearner

Asked = Sequence[tuple[Situation, np.random.Generator]]


@dataclass(frozen=True)
class Writer:
    """Writes the longer, and the more nonsense, the larger its weights are: at 1, 8 tokens, half of them nonsense."""

    inner: TacticsPolicy
    weight: float
    abilities = frozenset({ANSWERS})

    @property
    def version(self) -> str:
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[Any]:
        return list(self.inner.score(situations))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return self.inner.tokens(situations)

    def respond(self, asked: Asked) -> list[Answer]:
        return [self._answer(situation, number, len(asked)) for number, (situation, _) in enumerate(asked)]

    def _answer(self, situation: Situation, number: int, of: int) -> Answer:
        valid = number >= of * self.weight / 2
        scores = np.zeros(len(situation.admissible), np.float32)
        text = situation.admissible[0] if valid else ("nonsense" if number % 2 else "")
        return Answer(text, (7,) * int(4 * (1 + self.weight)), scores, finished=valid or not text)


class Verbose(TacticsLearner):
    """A learner of policies that write."""

    def policy(self, adapter: Adapter, measured: bool = False) -> Any:
        return Writer(TacticsPolicy.from_adapter(adapter, "v"), float(np.abs(adapter["weights"]).max()))


def bounded(run: Run, **bounds: float) -> Run:
    server = replace(run.config.server, max_base_kl=0, **bounds)  # type: ignore[arg-type]
    return replace(run, learner=Verbose(), config=replace(run.config, server=server))


def candidate_of(server: CycleServer, weight: float = 1.0) -> Trained:
    return Trained("candidate", {"weights": np.full_like(server.state.version.adapter["weights"], weight)})


@pytest.mark.parametrize(("bounds", "reason"), [
    ({"max_invalid": 0.49}, "50.0% of {n} are invalid, and server.max-invalid is 0.49"),
    ({"max_answer_tokens": 7.5}, "8.0 tokens on average, and server.max-answer-tokens is 7.5"),
    ({"max_invalid": 0.1, "max_answer_tokens": 6}, "50.0% of {n} are invalid, and server.max-invalid is 0.1; 8.0 "
     "tokens on average, and server.max-answer-tokens is 6"),
    ({"max_invalid": 0.5, "max_answer_tokens": 8}, ""),
    ({}, ""),
])  # fmt: skip
def test_a_candidate_with_longer_or_more_invalid_answers_is_refused_untried(
    server: CycleServer, bounds: dict[str, float], reason: str
) -> None:
    run = bounded(server.run, **bounds)
    run = replace(run, config=replace(run.config, distil=replace(run.config.distil, halvings=0)))
    judged = judge(run, server.state, 1, candidate_of(server))
    assert judged.tried is not bool(reason)
    assert run.phases.finished(1, "answers") is bool(bounds), "without a bound nothing is written"
    if reason:
        number = WRITTEN.read(run.phases.load(1, "answers")).answers
        assert 2 <= number <= MOST_PROMPTS and number % 2 == 0
        assert not judged.verdict.passed and judged.verdict.reason == f"{UNFIT}: {reason.format(n=number)}"


def test_half_the_way_back_is_tried_again(server: CycleServer) -> None:
    start = server.state.version
    at_zero = replace(server.state, version=replace(start, adapter={"weights": start.adapter["weights"] * 0}))
    judged = judge(bounded(server.run, max_answer_tokens=7), at_zero, 1, candidate_of(server))
    assert judged.tried and judged.verdict.reason.startswith("1/2 of the way to the candidate")


def test_a_resumed_run_reads_what_was_written(server: CycleServer) -> None:
    run = bounded(server.run, max_invalid=0.2)
    reason = unfit(run, 1, "answers", candidate_of(server))
    assert reason and unfit(run, 1, "answers", candidate_of(server, 0.0)) == reason
    assert not unfit(run, 2, "answers", candidate_of(server, 0.0))


@pytest.mark.parametrize("family", ["tidy things=1 final=0 turns=8", "tidy things=1 open=1 turns=2"])
def test_a_server_with_prompts_only_holds_candidates_to_the_same_bounds(
    server: CycleServer, cache: Path, family: str
) -> None:
    public = PromptsPublic(read_pack(pack_for(family, 200, cache)), 20, 0)
    assert any(situation.open for situation in public.situations()) is ("open" in family)
    run = replace(bounded(server.run, max_invalid=0.4), public=public)
    assert unfit(run, 1, "answers", candidate_of(server)).startswith(f"{UNFIT}: 50.0% of {MOST_PROMPTS} are invalid")
    assert not unfit(run, 2, "answers", candidate_of(server, 0.5))


def test_a_language_model_writes_the_same_answers_again(server: CycleServer, tiny_base: Path, tmp_path: Path) -> None:
    policy = PolicyConfig(
        base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4, decoding="free",
        response_tokens=4,
    )  # fmt: skip
    learner = TorchLearner(RunConfig(policy=policy), tmp_path)
    run = replace(bounded(server.run, max_invalid=0.5), learner=learner)
    fresh = Trained("fresh", learner._model().fresh)
    assert "100.0% of" in unfit(run, 1, "answers", fresh), "a random model writes no command"
    assert unfit(run, 2, "answers", fresh)
    first, again = (WRITTEN.read(run.phases.load(cycle, "answers")) for cycle in (1, 2))
    assert first == again and 1 <= first.tokens <= 4


@pytest.mark.parametrize(("policy", "bounds", "remedy"), [
    ({}, {"max_invalid": 0.1}, r"server\.max-invalid is about what a policy writes.*policy\.decoding 'tree'"),
    ({}, {"max_answer_tokens": 5}, r"server\.max-answer-tokens is about what a policy writes"),
    ({"decoding": "free"}, {"max_answer_tokens": 16}, r"16 refuses nothing.*policy\.response-tokens 16; set it below"),
])  # fmt: skip
def test_bounds_that_could_refuse_nothing_are_refused(
    policy: dict[str, Any], bounds: dict[str, float], remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check_bounds(RunConfig(policy=PolicyConfig(**policy), server=ServerConfig(**bounds)))  # type: ignore[arg-type]
    check_bounds(RunConfig(policy=PolicyConfig(decoding="free"), server=ServerConfig(max_answer_tokens=15.5)))
    check_bounds(RunConfig())


def test_a_run_that_chooses_among_commands_is_refused_before_it_starts(config: RunConfig, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r'set policy\.decoding = "free", or server\.max-invalid = 0'):
        check(replace(config, server=replace(config.server, max_invalid=0.1)), cache)
    check(config, cache)
