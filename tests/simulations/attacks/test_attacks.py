"""Malicious clients: what they send, and that honest ones and the protocol around them stay what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.client.runtime import SimulatedRuntime
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY, tactic_name
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.experience import Counters, ExperienceVector, VectorSpec
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.server.app import run
from fedoel.simulations.attacks import ATTACKS, Gang, Knowledge, cells_of, make_attacked_app, malicious_of
from fedoel.simulations.grid import InProcessGrid, server_identity

SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v2", ("lake",), 2, 5.0, 20.0)
SETTINGS: dict[str, Scalar] = {
    "clients": 10, "cycles": 2, "policy.backend": "tactics", "games.per-client": 3, "games.held-out": 4,
    "games.families": "frozen-lake size=3 turns=6", "games.rehearsal": 6, "games.gate": 4,
    "strategy.min-available-nodes": 10, "server.public": "games",
}  # fmt: skip
Settings = Mapping[str, Scalar]
NOTHING: Settings = {}


def vector(seed: int, spec: VectorSpec = SPEC) -> ExperienceVector:
    rng = np.random.default_rng(seed)
    gradient = (0.1 * rng.normal(size=DIMENSION)).astype(np.float32)
    return ExperienceVector(spec, gradient, np.abs(gradient), Counters(np.ones(spec.counters_shape, np.float32)))


def said(name: str, seed: int = 0) -> ExperienceVector:
    colluders = [vector(seed) for seed in range(3)]
    old = VectorSpec(**{**{f: getattr(SPEC, f) for f in VectorSpec.__dataclass_fields__}, "policy_version": "v1"})
    return ATTACKS[name](Knowledge(colluders[1], vector(9, old), colluders, np.random.default_rng(seed)))


def cosine(one: Any, other: Any) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_what_each_attack_sends() -> None:
    own, leader = vector(1), vector(0)
    assert said("none") is not own and np.array_equal(said("none").to_array(), own.to_array())
    assert np.linalg.norm(said("random").gradient) == pytest.approx(5.0, rel=1e-5)
    assert not np.array_equal(said("random").gradient, said("random", seed=1).gradient)
    assert np.array_equal(said("sign-flip").gradient, -own.gradient)
    assert np.allclose(said("scale-100").gradient, -100 * own.gradient)
    assert np.array_equal(said("sybil").gradient, -leader.gradient)
    assert np.array_equal(said("replay").gradient, vector(9).gradient) and said("replay").spec == SPEC
    assert np.isnan(said("nan").to_array()).all() and (said("overflow").gradient > 1e38).all()
    together = np.mean([vector(seed).gradient for seed in range(3)], axis=0)
    assert cosine(said("collude").gradient, together) == pytest.approx(-1, abs=1e-5)
    assert np.linalg.norm(said("collude").gradient) == pytest.approx(
        max(np.linalg.norm(vector(seed).gradient) for seed in range(3)), rel=1e-5
    )


def test_the_constant_target_is_to_drop_what_is_carried() -> None:
    pushed = np.flatnonzero(said("constant").gradient)
    assert len(pushed) == 9
    assert all(tactic_name(int(cell)).startswith("drop · ") for cell in pushed)
    assert all(tactic_name(int(cell)).endswith("of what is carried, or straight back") for cell in pushed)


def test_under_a_mask_a_lie_need_not_be_clipped_but_is_a_number() -> None:
    plan = PrivacyPlan.make((Part("gradient", DIMENSION, 5.0, 1.0),), 10, 8, 0.0)
    honest = plan.decode(cells_of(vector(1), plan))["gradient"]
    assert np.allclose(honest, vector(1).gradient, atol=2 * 5.0 / plan.steps)
    lie = plan.decode(cells_of(said("scale-100"), plan))["gradient"]
    assert np.linalg.norm(lie) > 5 * 5.0
    assert (plan.decode(cells_of(said("nan"), plan))["gradient"] > 5.0).all()


def test_the_same_share_of_clients_lies_for_the_same_seed() -> None:
    assert malicious_of(40, 0.2, 1) == malicious_of(40, 0.2, 1) != malicious_of(40, 0.2, 2)
    assert len(malicious_of(40, 0.2, 1)) == 8 == len(set(malicious_of(40, 0.2, 1)))
    assert malicious_of(40, 0.0, 1) == ()


def collected(
    tmp_path: Path, cache: Path, attack: str, share: float = 0.2, settings: Settings = NOTHING
) -> list[dict[str, Any]]:
    """Run, and read what each cycle collected."""
    folder = tmp_path / f"{attack}-{share}-{settings.get('strategy.name', 'mean')}"
    config = RunConfig.from_flat({**SETTINGS, "out": str(folder), "cache": str(cache), **settings})
    runtime = SimulatedRuntime()
    gang = Gang(runtime, config, ATTACKS[attack], malicious_of(10, share, 0))
    with server_identity():
        run(InProcessGrid(make_attacked_app(runtime, gang), 10, config.to_flat()), config, cache)
    found = []
    for cycle in (1, 2):
        with np.load(folder / "checkpoints" / f"cycle-{cycle:03d}" / "collect.npz") as kept:
            found.append(
                {
                    **json.loads(kept["values"].tobytes()),
                    "vector": kept["vector"][:DIMENSION] if "vector" in kept else None,
                }
            )
    return found


def test_a_gang_that_tells_the_truth_changes_nothing(tmp_path: Path, cache: Path) -> None:
    for strategy in ("mean", "secure-mean"):
        own: dict[str, Scalar] = {"strategy.name": strategy}
        truth, nobody = (collected(tmp_path, cache, "none", share, own)[0] for share in (0.2, 0.0))
        assert np.allclose(truth["vector"], nobody["vector"], atol=1e-6)
        assert truth["accepted"] == 10


@pytest.mark.parametrize("attack", ["nan", "overflow"])
def test_what_is_no_vector_is_refused_and_counted(attack: str, tmp_path: Path, cache: Path) -> None:
    for cycle in collected(tmp_path, cache, attack):
        assert (cycle["accepted"], cycle["refused"]) == (8, {"bad vector": 2})


def test_a_sum_that_clipped_vectors_cannot_give_is_left_out(tmp_path: Path, cache: Path) -> None:
    own: dict[str, Scalar] = {"strategy.name": "secure-mean"}
    truth, lie = (collected(tmp_path, cache, attack, settings=own)[0] for attack in ("none", "overflow"))
    assert truth["refused"] == {} and lie["vector"] is None and lie["refused"] == {"sum too long": 1}
    grouped: dict[str, Scalar] = {"strategy.name": "grouped-secure", "strategy.options": "group-size=3"}
    found = collected(tmp_path, cache, "overflow", 0.1, grouped)[0]
    assert found["refused"] == {"sum too long": 1} and 6 <= found["accepted"] <= 7
    assert np.linalg.norm(found["vector"]) < 3 * np.linalg.norm(truth["vector"])


def test_groups_that_liars_have_spoilt_count_less_and_nothing_of_theirs_arrives(tmp_path: Path, cache: Path) -> None:
    trusted: dict[str, Scalar] = {"strategy.name": "trusted-secure", "strategy.options": "group-size=3"}
    trusted |= {"games.per-client": 24, "games.rehearsal": 96}  # enough for groups to point somewhere
    [truth, lie] = (collected(tmp_path, cache, attack, 0.1, trusted)[0] for attack in ("none", "scale-100"))
    assert truth["refused"] == {} and truth["accepted"] == 10
    assert lie["refused"] == {"sum too long": 1} and 6 <= lie["accepted"] <= 7
    assert np.linalg.norm(lie["vector"]) < 3 * np.linalg.norm(truth["vector"])
