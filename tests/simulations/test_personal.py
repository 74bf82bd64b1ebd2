"""Contexts that devices keep for themselves: what they are made of, and what they gain where rules conflict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.cli.main import main
from fedoel.client.personal_context import personal_context
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY
from fedoel.protocol.config import ContextConfig, RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.experience import Counters, ExperienceVector, VectorSpec
from fedoel.server.run_folder import prepare_folder
from fedoel.server.summary import read_summary
from fedoel.simulations.held_out import Extra, measure_personal, personal_table
from fedoel.simulations.inprocess import run_inprocess

CONFLICT: dict[str, Scalar] = {
    "clients": 4, "cycles": 1, "policy.backend": "tactics", "games.families": "orchard turns=6; mirror-orchard turns=6",
    "games.partition": "by-family", "games.per-client": 24, "games.rehearsal": 24, "games.gate": 24,
    "games.held-out": 80, "context.max-kl": 1.0, "server.public": "games",
}  # fmt: skip


def test_a_device_without_turns_has_nothing_of_its_own() -> None:
    spec = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("orchard",), 6, 50.0, 200.0)
    part = np.ones(DIMENSION, np.float32)
    vector = ExperienceVector(spec, part, part, Counters(np.zeros(spec.counters_shape, np.float32)))
    assert not personal_context(vector, [], ContextConfig()).any()


def test_where_rules_conflict_a_context_of_its_own_wins_what_the_shared_version_cannot(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig.from_flat({**CONFLICT, "cache": str(cache), "out": str(tmp_path / "run")})
    prepare_folder(config)
    run_inprocess(config)
    version = tmp_path / "run" / "versions" / read_summary(tmp_path / "run").cycles[-1].version
    extras = measure_personal(config, version)
    assert [each.client for each in extras] == [0, 1, 2, 3]
    gains = [each.personal - each.shared for each in extras]
    assert np.mean(gains) > 0.15
    assert main(["evaluate", str(version), "--personal"]) == 0
    assert capsys.readouterr().out.strip() == personal_table(extras)
    with pytest.raises(ConfigError, match="tactics"):
        measure_personal(RunConfig.from_flat({**config.to_flat(), "codec.name": "prefix"}), version)


def test_a_table_ends_with_the_mean() -> None:
    said = personal_table([Extra(0, 0.5, 1.0), Extra(1, 0.25, 0.5)]).splitlines()
    assert len(said) == 4 and said[-1].split() == ["mean", "38", "%", "75", "%", "+38"]
