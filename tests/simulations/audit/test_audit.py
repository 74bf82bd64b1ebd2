"""The whole audit: it finds nothing where nothing is wrong, and what was planted where something is."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fedoel.cli.main import main
from fedoel.client.runtime import SimulatedRuntime
from fedoel.policies.policy import LogProbs, Policy
from fedoel.protocol.config import PolicyConfig, RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.experience import ExperienceVector
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.situation import Situation
from fedoel.protocol.trials import TrialTerms
from fedoel.server.app import check
from fedoel.server.safeguards import RunSafeguards
from fedoel.simulations.audit import card
from fedoel.simulations.audit.attacks import Pool, attribute, auroc, detected, membership, play_pool
from fedoel.simulations.audit.card import Card
from fedoel.simulations.audit.leaks import Surveillance, small, watch
from fedoel.simulations.audit.mechanism import Bound
from fedoel.simulations.audit.planted import Extraction, candidates, extractions, lora_extraction
from fedoel.simulations.prompts import with_any_pack
from fedoel.simulations.scenario import load_scenario
from fedoel.strategies.secure_mean import SecureMean

PLAN = PrivacyPlan.make((Part("gradient", 324, 2.0, 1.0),), 60, 40, 1.25)


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    given: dict[str, Scalar] = {"server.public": "games", "privacy.epsilon": 8.0}
    return load_scenario("private", {**given, "cache": str(cache), "out": str(tmp_path / "run")})


@dataclass(frozen=True)
class Telling:
    """Planted: a policy that logs what it reads."""

    inner: Policy
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        logging.getLogger("flwr").info("playing %s", situations[0].place_text)
        return self.inner.score(situations)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return self.inner.tokens(situations)


@dataclass(frozen=True)
class TellingRuntime(SimulatedRuntime):
    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        return Telling(super().policy(config, request))


def test_a_run_that_keeps_its_promises(config: RunConfig, tmp_path: Path) -> None:
    found = watch(config, tmp_path / "run")
    assert not found.leaks and found.heard > 100 and found.unmasked == found.journaled == 1


def test_a_run_with_trials_of_several_games_keeps_its_promises(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, server=replace(config.server, public="prompts"), trial=replace(config.trial, games=2))
    found = watch(with_any_pack(config), tmp_path / "run")
    assert not found.leaks and found.unmasked == found.journaled > 1


def test_the_documented_command_audits_a_run_that_can_begin(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server of `private` has no games and names no pack of prompts; attacks and run are tested by themselves."""
    one = ExperienceVector.from_parts(TrialTerms(1, 2.0, False).spec("v1", ("coin",)), {})

    def checked(config: RunConfig, out: Path) -> Surveillance:
        check(small(config, out), cache)
        return Surveillance(0, (), 0, 0)

    for name in ("attack", "audited", "Mechanism", "audit_mechanism", "membership", "attribute", "extractions"):
        monkeypatch.setattr(card, name, lambda *given: [])
    for name in ("play_pool", "trial_pool"):
        monkeypatch.setattr(card, name, lambda *given: Pool([one], []))
    monkeypatch.setattr(card, "watch", checked)
    assert main(["audit", "--out", str(tmp_path / "card"), "--set", f"cache={cache}"]) == 0
    assert "Every promise held in this audit" in capsys.readouterr().out


def test_a_trajectory_in_a_log_is_found(config: RunConfig, tmp_path: Path) -> None:
    logging.getLogger("flwr").setLevel(logging.INFO)
    found = watch(config, tmp_path / "run", TellingRuntime())
    assert found.leaks and found.leaks[0].startswith("logs: ")


def test_a_double_release_is_found(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once, spend = SecureMean.secure_sums, RunSafeguards.spend

    def twice(self: SecureMean, *arguments: Any) -> Any:
        once(self, *arguments)
        return once(self, *arguments)

    def forgetful(self: RunSafeguards, cycle: int) -> None:
        if not self.ledger.spent():
            spend(self, cycle)

    monkeypatch.setattr(SecureMean, "secure_sums", twice)
    monkeypatch.setattr(RunSafeguards, "spend", forgetful)
    found = watch(config, tmp_path / "run")
    assert (found.unmasked, found.journaled) == (2, 1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return play_pool(load_scenario("private", {}), 70, tmp_path_factory.mktemp("cache"))


def test_a_single_vector_tells_and_a_noisy_sum_does_not(pool: Pool) -> None:
    for findings in (membership(pool, PLAN, 0.1, 600, 0), attribute(pool, PLAN, 600, 0)):
        by_view = {finding.view: finding for finding in findings}
        assert by_view["single vector"].auroc > 0.75
        assert by_view["noisy sum"].auroc < 0.58 > by_view["adapter of the next version"].auroc


def test_without_noise_a_small_sum_tells(pool: Pool) -> None:
    """The attack works: a sum over two devices, bare, gives its members away."""
    few = PrivacyPlan.make((Part("gradient", 324, 2.0, 1.0),), 3, 2, 1e-6)
    found = {finding.view: finding.auroc for finding in membership(pool, few, 1.0, 600, 0)}
    assert found["sum"] > 0.7


def test_secrets_stay_where_they_are() -> None:
    found = {each.view: each.extracted for each in extractions(PLAN, 0, 100)}
    assert found == {"raw text": 100, "plain embedding": 100, "single vector": 0, "noisy sum": 0}
    assert len(set(candidates())) == 1000


def test_an_update_of_weights_tells_every_secret(tiny_base: Path, tmp_path: Path) -> None:
    """What federated averaging sends is attacked with success: the attack is not blunt, the vector is."""
    found = lora_extraction(PolicyConfig(base=str(tiny_base), lora_layers=2), tmp_path, 0, 20)
    assert (found.extracted, found.planted) == (20, 20)


def test_scores_are_summed_up() -> None:
    positive = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 2.0, 1.0, 0.0]), positive) == 1.0
    assert auroc(np.array([1.0, 0.0, 1.0, 0.0]), positive) == 0.5
    assert auroc(np.zeros(4), positive) == 0.5
    assert detected(np.array([3.0, 0.5, 1.0, 0.0]), positive) == 0.5


def test_a_card_says_what_does_not_hold(config: RunConfig, tmp_path: Path) -> None:
    surveillance = watch(config, tmp_path / "run")
    made = Card({}, [Bound("one release", 1.0, 2.0, 0.5)], [], [Extraction("noisy sum", 3, 1000)], surveillance)
    assert len(made.problems) == 2 and "at least epsilon 2.00, promised 1.00" in made.markdown()
    fine = replace(made, bounds=[Bound("one release", 1.0, 0.9, 0.5)], extractions=[Extraction("raw text", 9, 9)])
    assert not fine.problems and "Every promise held" in fine.markdown()
    for path in fine.write(tmp_path / "card"):
        assert path.exists()
    assert json.loads((tmp_path / "card" / "privacy-card.json").read_text())["problems"] == []


def test_too_few_trials_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "quick", "--trials", "5"]) == 2
    assert "fewer trials of an attack say nothing" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        load_scenario("nowhere", {})


def test_plans_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["privacy", "plan", "--epsilon", "2", "--clients", "1000", "--cycles", "3", "--cohort"]
    assert main([*arguments, "100"]) == 0
    said = capsys.readouterr().out
    assert "sum of 6 releases" in said and "2 games of each of 100 devices, twice" in said
    for words in ("multiplier 1.34", "100 of 1000 on average", "16 bits", "neighbours each", "stands out"):
        assert words in said
    assert main([*arguments, "100", "--trial-games", "0"]) == 0
    said = capsys.readouterr().out
    assert "sum of 3 releases" in said and "multiplier 1.25" in said and "trials" not in said
    assert main([*arguments, "2"]) == 2 and main([*arguments, "2000"]) == 2
    assert "too few to hide in" in capsys.readouterr().err
