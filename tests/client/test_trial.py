"""A device's part in a trial: which games it plays, what it keeps of them, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, RecordDict
from numpy.typing import NDArray

from fedoel.client import app as client_app
from fedoel.client import trial as client_trial
from fedoel.client.app import make_app, private_games
from fedoel.client.fallback import Results, Success
from fedoel.client.runtime import SimulatedRuntime
from fedoel.client.store import TrajectoryStore, key_from_file
from fedoel.codecs.tactics import coordinates as tactics
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games import player
from fedoel.policies.policy import Policy
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, TrialConfig
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet.membership import Membership
from fedoel.protocol.messages import PlayRequest, request_to_records, vector_from_reply
from fedoel.protocol.play import GameId, Trajectory, merit
from fedoel.protocol.secagg.keys import Identity
from fedoel.protocol.signing import sign_request
from fedoel.protocol.trials import ACTION, TrialTerms, fallbacks_of, health_of, sums_of, trial_vector
from fedoel.simulations.grid import server_identity

FAMILIES = ("frozen-lake", "tidy")
CONFIG = RunConfig(
    games=GamesConfig(families="frozen-lake size=4 turns=6; tidy things=1 final=0 turns=8", per_client=5),
    policy=PolicyConfig(backend="tactics"),
    trial=TrialConfig(games=3, clip=1.5),
)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TERMS = TrialTerms(3, 1.5, True)
RNG = np.random.default_rng(0)
CONTEXT, *WEIGHTS = (RNG.normal(size=tactics.DIMENSION).astype(np.float32) for _ in range(3))
CURRENT, CANDIDATE = "v1", "v2"
ADAPTERS: Mapping[str, NDArray[np.float32]] = dict(zip((CURRENT, CANDIDATE), WEIGHTS, strict=True))


@dataclass(frozen=True)
class Runtime(SimulatedRuntime):
    """A simulated device that needs no run folder."""

    folder: Path
    seen: Path

    def cache(self, config: RunConfig) -> Path:
        return self.folder

    def membership(self, config: RunConfig, client: int) -> Membership:
        return Membership(Identity(OWNER), frozenset(), OWNER.public_key().public_bytes_raw(), self.seen)


@dataclass
class Device:
    """A node with a state, which has written down all that was played on it."""

    runtime: Runtime
    played: list[tuple[str, list[GameId], list[int]]]
    context: Context = field(
        default_factory=lambda: Context(
            1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), dict(CONFIG.to_flat())
        )
    )

    def answer(self, request: PlayRequest) -> Any:
        """Return the vector of the reply; forget what was played for earlier requests."""
        self.played.clear()
        trial = request.spec.codec == "trial"
        signed = sign_request(OWNER, replace(request, config=RunConfig.from_flat(self.context.run_config).digest))
        message = Message(
            request_to_records(signed), dst_node_id=2,
            message_type=ACTION if trial else "train.experience",
        )  # fmt: skip
        return vector_from_reply(make_app(self.runtime)(message, self.context).content, request.spec)

    def refusal(self, request: PlayRequest) -> str:
        with pytest.raises(FedoelError) as caught:
            self.answer(request)
        assert not self.played
        return str(caught.value)

    @property
    def keeps(self) -> set[str]:
        """The versions whose games it keeps."""
        return {name.removeprefix("trial-") for name in self.context.state if name.startswith("trial-")}


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def device(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    played: list[tuple[str, list[GameId], list[int]]] = []

    def play(policy: Policy, games: Sequence[GameId], seeds: Sequence[int], *rest: Any) -> list[Trajectory]:
        if games:
            played.append((policy.version, list(games), list(seeds)))
        return player.play_episodes(policy, games, seeds, *rest)

    for module in (client_app, client_trial):
        monkeypatch.setattr(module, "play_episodes", play)
    return Device(Runtime(cache, tmp_path / "seen"), played)


def trial(
    context: NDArray[np.float32] | None = None, candidate: str = "", cycle: int = 1, terms: TrialTerms = TERMS
) -> PlayRequest:
    """Ask for a trial of a context or of a candidate against the current version."""
    return PlayRequest(
        cycle, 2, replace(terms, candidate=candidate).spec(CURRENT, FAMILIES), None,
        {"weights": ADAPTERS[CURRENT]}, context, candidate={"weights": ADAPTERS[candidate]} if candidate else {},
    )  # fmt: skip


def experience(version: str, cycle: int = 2, context: NDArray[np.float32] | None = None) -> PlayRequest:
    spec = VectorSpec("tactics", tactics.DIMENSION, tactics.VOCABULARY, version, FAMILIES, 8, 50.0, 200.0)
    return PlayRequest(cycle, 1, spec, None, {"weights": ADAPTERS[version]}, context)


def fresh(device: Device) -> Device:
    """The same device after its process has ended: without a state."""
    return Device(device.runtime, device.played)


def next_games(cycle: int = 2) -> tuple[list[GameId], list[int]]:
    games, seeds = private_games(CONFIG, cycle, 0, 2)
    return list(games), seeds


@pytest.mark.parametrize("cycle", [1, 4])
def test_a_trial_is_played_on_the_first_games_of_the_next_cycle_paired_by_seed_and_stream(
    device: Device, cycle: int
) -> None:
    games, seeds = next_games(cycle + 1)
    device.answer(trial(candidate=CANDIDATE, cycle=cycle))
    assert device.played == [(CURRENT, games[:3], seeds[:3]), (CANDIDATE, games[:3], seeds[:3])]
    fresh(device).answer(trial(CONTEXT, cycle=cycle))
    (version, *before), (_, *after) = device.played
    assert version == CURRENT and before == after == [games[:3], seeds[:3]]


@pytest.mark.parametrize("of_context", [True, False])
def test_the_answer_is_what_the_games_differ_in(device: Device, of_context: bool) -> None:
    request = trial(CONTEXT) if of_context else trial(candidate=CANDIDATE)
    tried = WEIGHTS[0] + CONTEXT if of_context else WEIGHTS[1]
    games, seeds = next_games()
    before, after = (
        player.play_episodes(TacticsPolicy("v", weights), games[:3], seeds[:3], device.runtime.folder)
        for weights in (WEIGHTS[0], tried)
    )
    merits = np.array([[merit(episode) for episode in episodes] for episodes in (before, after)])
    won = np.array([[episode.won for episode in episodes] for episodes in (before, after)])
    expected = trial_vector(request.spec, [episode.spec.family for episode in before], merits, won)
    vector = device.answer(request)
    assert np.allclose(sums_of(vector), sums_of(expected), atol=1e-2)
    assert sums_of(vector)[:, 2].sum() == pytest.approx(3, abs=1e-2)


def test_a_candidate_whose_answers_no_game_takes_pays_for_them_in_a_trial(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(policy: Policy, *arguments: Any) -> list[Trajectory]:
        played = player.play_episodes(policy, *arguments)
        if policy.version != CANDIDATE:
            return played
        return [replace(each, turns=tuple(replace(turn, refused=True) for turn in each.turns)) for each in played]

    monkeypatch.setattr(client_trial, "play_episodes", refused)
    free = sums_of(fresh(device).answer(trial(candidate=CANDIDATE)))
    costly = fresh(device)
    costly.context.run_config["games.refusal"] = 0.5
    paid = sums_of(costly.answer(trial(candidate=CANDIDATE)))
    assert (free - paid)[:, 0].sum() == pytest.approx(3 * 0.5, abs=1e-2)
    assert np.array_equal(free[:, 2:], paid[:, 2:])


def test_what_a_trial_has_played_is_experience_of_the_next_cycle_and_is_not_played_again(device: Device) -> None:
    """Whatever becomes of the candidate: the current version's games count if it stays, and else the candidate's."""
    games, seeds = next_games()
    device.answer(trial(candidate=CANDIDATE))
    assert device.keeps == {CURRENT, CANDIDATE}
    for version in (CURRENT, CANDIDATE):
        vector = device.answer(experience(version))
        assert device.played == [(version, games[3:], seeds[3:])]
        assert vector.counters.episodes.sum() == 5
        without_state = fresh(device).answer(experience(version))
        assert device.played == [(version, games, seeds)]
        assert np.array_equal(vector.to_array(), without_state.to_array())


def test_a_device_remembers_how_well_it_did_with_its_last_two_versions(device: Device) -> None:
    """Each cycle's games once, those of a trial included, and nothing that was played under a context."""

    def merits(version: str, cycle: int) -> float:
        policy = TacticsPolicy(version, WEIGHTS[0 if version == CURRENT else 1])
        return sum(
            merit(episode) for episode in player.play_episodes(policy, *next_games(cycle), device.runtime.folder)
        )

    for request in (experience(CURRENT, 1), experience(CURRENT, 1), trial(candidate=CANDIDATE, cycle=1),
                    experience(CANDIDATE, 2), experience(CANDIDATE, 3, CONTEXT), experience(CANDIDATE, 4)):  # fmt: skip
        device.answer(request)
    before, after = SimulatedRuntime().success(device.context.state).versions
    assert (before.version, before.games, after.version, after.games) == (CURRENT, 5, CANDIDATE, 10)
    assert before.merit == pytest.approx(merits(CURRENT, 1))
    assert after.merit == pytest.approx(merits(CANDIDATE, 2) + merits(CANDIDATE, 4))


@pytest.mark.parametrize(("last", "counts"), [(CURRENT, 1), ("v0", 0)])
def test_the_answer_says_whether_the_device_has_gone_back_from_the_current_version(
    device: Device, last: str, counts: int
) -> None:
    success = Success((Results("before", 1, 200, 400.0), Results(last, 2, 200, 0.0)))
    SimulatedRuntime().keep_success(device.context.state, success)
    assert success.fallen_back and fallbacks_of(device.answer(trial(CONTEXT))) == counts
    assert device.played[0][0] == CURRENT  # what the server asks for is played nonetheless


def test_the_answer_says_how_the_device_is_where_the_run_asks_for_it(device: Device) -> None:
    device.context.run_config["trial.health"] = True
    request = trial(candidate=CANDIDATE, terms=replace(TERMS, health=True))

    def told() -> list[float]:
        counts = health_of(device.answer(request))
        assert counts is not None
        answers, died, behind, *buckets = counts.sum(axis=0).tolist()
        assert (answers, died) == (1, 0) and sum(buckets[4:]) == 1
        return [behind, sum(buckets[:4])]

    assert told() == [1, 1]  # it has played no version for experience yet
    device.answer(experience(CURRENT, 1))
    assert told() == [0, 0]  # all has been played, so that nothing tells how long a turn takes
    assert device.refusal(trial(candidate=CANDIDATE)) == "code: VectorError"


def test_a_success_that_cannot_be_read_starts_anew(device: Device) -> None:
    device.context.state["success"] = ConfigRecord({"version": ["v0"], "games": [3]})
    device.answer(experience(CURRENT, 1))
    assert [one.version for one in SimulatedRuntime().success(device.context.state).versions] == [CURRENT]


def test_a_second_trial_in_a_cycle_plays_the_current_version_no_more(device: Device) -> None:
    device.answer(trial(CONTEXT))
    again = device.answer(trial(CONTEXT))
    [(version, games, _)] = device.played
    assert version != CURRENT and len(games) == 3
    assert np.array_equal(again.to_array(), fresh(device).answer(trial(CONTEXT)).to_array())
    device.answer(trial(candidate=CANDIDATE))
    assert [version for version, *_ in device.played] == [CANDIDATE]
    device.answer(trial(candidate=CANDIDATE))
    assert not device.played


def test_what_is_played_under_a_context_is_never_kept(device: Device) -> None:
    games, seeds = next_games()
    device.answer(trial(CONTEXT))
    assert device.keeps == {CURRENT}
    device.answer(experience(CURRENT, context=CONTEXT))  # a later exchange: its context is not what was kept
    [(_, *played)] = device.played
    assert played == [games, seeds]


def test_games_of_another_cycle_are_not_used_and_the_next_trial_forgets_them(device: Device) -> None:
    device.answer(trial(candidate=CANDIDATE))
    for cycle in (1, 3):
        device.answer(experience(CURRENT, cycle=cycle))
        assert [len(games) for _, games, _ in device.played] == [5]
    device.answer(trial(CONTEXT, cycle=2))
    assert device.keeps == {CURRENT}
    assert device.played[0] == (CURRENT, *(part[:3] for part in next_games(3)))


def test_a_state_that_cannot_be_read_is_played_again(device: Device) -> None:
    whole = device.answer(trial(CONTEXT))
    device.context.state[f"trial-{CURRENT}"] = ConfigRecord({"cycle": 2, "data": [b"?"] * 3, "rows": [1, 2, 3]})
    assert np.array_equal(device.answer(trial(CONTEXT)).to_array(), whole.to_array())
    assert len(device.played) == 2


@pytest.mark.parametrize(
    "request_",
    [
        trial(CONTEXT, terms=replace(TERMS, games=2)),
        trial(CONTEXT, terms=replace(TERMS, games=4)),
        trial(CONTEXT, terms=replace(TERMS, clip=2.0)),
        trial(CONTEXT, terms=replace(TERMS, health=True)),
        replace(trial(CONTEXT), spec=replace(trial().spec, clipping_norm=1e6)),
        replace(trial(CONTEXT), spec=replace(trial().spec, vocabulary="3 1.5 yes ")),
        trial(CONTEXT[:-1]),
        trial(np.append(CONTEXT, np.float32(0))),
        trial(CONTEXT[:0]),
        trial(),
        trial(CONTEXT, candidate=CANDIDATE),
        replace(trial(candidate=CANDIDATE), spec=trial().spec),
        replace(trial(CONTEXT), spec=trial(candidate=CANDIDATE).spec),
        replace(trial(CONTEXT), parameters={"whitening": CONTEXT}),
    ],
    ids=[
        "fewer games", "more games", "clip", "health", "norm", "terms", "short context", "long context", "no numbers",
        "neither", "both", "nameless candidate", "name without a candidate", "parameters",
    ],
)  # fmt: skip
def test_what_is_no_trial_of_this_run_is_refused_before_anything_is_played(
    device: Device, request_: PlayRequest
) -> None:
    assert device.refusal(request_) == "code: VectorError"


def test_a_trial_that_was_changed_after_signing_is_refused(device: Device) -> None:
    signed = sign_request(OWNER, trial(candidate=CANDIDATE))
    changed = replace(signed, candidate={"weights": WEIGHTS[0]})
    message = Message(request_to_records(changed), dst_node_id=2, message_type=ACTION)
    with pytest.raises(FedoelError, match=r"^code: VersionError$"):
        make_app(device.runtime)(message, device.context)


@pytest.mark.parametrize(
    "request_",
    [
        trial(candidate=CANDIDATE),
        replace(trial(candidate=CANDIDATE), signature=bytes(64)),
        replace(sign_request(OWNER, replace(trial(candidate=CANDIDATE), serial=1)), serial=2),
        sign_request(Ed25519PrivateKey.from_private_bytes(bytes(32)), trial(candidate=CANDIDATE)),
    ],
    ids=["no signature", "zeros", "another serial", "another owner"],
)
def test_a_trial_that_the_owner_has_not_signed_is_refused_before_anything_is_played(
    device: Device, request_: PlayRequest
) -> None:
    message = Message(request_to_records(request_), dst_node_id=2, message_type=ACTION)
    with pytest.raises(FedoelError, match=r"^code: VersionError$"):
        make_app(device.runtime)(message, device.context)
    assert not device.played and not device.keeps


def test_an_older_trial_is_not_played_again(device: Device) -> None:
    device.answer(replace(trial(candidate=CANDIDATE), serial=5))
    assert device.refusal(replace(trial(CONTEXT), serial=4)) == "code: VersionError"


def test_games_of_trials_are_in_the_log_once_and_count_as_used_by_the_experience(
    device: Device, tmp_path: Path
) -> None:
    path = tmp_path / "store.sqlite"
    device.context.node_config["store"] = str(path)
    device.answer(trial(candidate=CANDIDATE))
    device.answer(experience(CANDIDATE))
    store = TrajectoryStore(path, "client-0", key_from_file(tmp_path / "store.sqlite.key"))
    versions = [row.trajectory.policy_version for row in store.read().rows]
    assert versions == [CURRENT] * 3 + [CANDIDATE] * 5
    assert [use.row for use in store.uses()] == [4, 5, 6, 7, 8] and len({use.vector for use in store.uses()}) == 1
