"""The device's app: what it answers, what it refuses, and that its failures quote nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict

from fedoel.client import app as client_app
from fedoel.client.app import make_app, partition, streams
from fedoel.client.device.runtime import runtime_of
from fedoel.client.runtime import SimulatedRuntime
from fedoel.client.store import TrajectoryStore, key_from_file
from fedoel.codecs.tactics import coordinates as tactics
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.player import play_episodes
from fedoel.policies.policy import LogProbs, Policy
from fedoel.protocol.config import GamesConfig, PolicyConfig, PrivacyConfig, RunConfig
from fedoel.protocol.errors import ConfigError, FedoelError, ModelError, VersionError
from fedoel.protocol.experience import BASE_COUNTERS, VectorSpec
from fedoel.protocol.fleet.membership import Membership, RunMode, keys_folder
from fedoel.protocol.messages import PlayRequest, records_bytes, request_to_records, vector_from_reply
from fedoel.protocol.play import Trajectory
from fedoel.protocol.secagg.keys import Identity
from fedoel.protocol.signing import check_request, sign_request
from fedoel.protocol.situation import Situation
from fedoel.simulations.grid import server_identity

CONFIG = RunConfig(
    games=GamesConfig(families="coin-collector level=1 turns=4", per_client=2), policy=PolicyConfig(backend="tactics")
)
SPEC = VectorSpec("tactics", tactics.DIMENSION, tactics.VOCABULARY, "v1", ("coin-collector",), 10, 50.0, 200.0)
SECRET = "the safe opens with 4711"
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@dataclass(frozen=True)
class FakeRuntime(SimulatedRuntime):
    """A runtime that loads the same policy for every request."""

    folder: Path
    loaded: Policy
    seen: Path = Path("nowhere")

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        return self.loaded

    def cache(self, config: RunConfig) -> Path:
        return self.folder

    def membership(self, config: RunConfig, client: int) -> Membership:
        return Membership(Identity(OWNER), frozenset(), OWNER.public_key().public_bytes_raw(), self.seen)


class Leaky:
    """A policy whose exception quotes a game."""

    version = "v1"
    abilities: frozenset[str] = frozenset()

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raise RuntimeError(f"{SECRET}: {situations}")

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def request(spec: VectorSpec = SPEC) -> PlayRequest:
    baseline = np.zeros((len(spec.families), spec.horizon), np.float32)
    weights = {"weights": np.zeros(tactics.DIMENSION, np.float32)}
    return PlayRequest(1, 1, spec, baseline, weights, config=CONFIG.digest)


def signed(unsigned: PlayRequest) -> RecordDict:
    return request_to_records(sign_request(OWNER, unsigned))


def context(config: RunConfig = CONFIG, client: Any = 0) -> Context:
    return Context(1, 1, {"partition-id": client, "num-partitions": 2}, RecordDict(), dict(config.to_flat()))


def call(runtime: Any, records: RecordDict, where: Context | None = None) -> Message:
    message = Message(records, dst_node_id=2, message_type="train.experience")
    return make_app(runtime)(message, where or context())


def failure(runtime: Any, records: RecordDict, where: Context | None = None) -> str:
    with pytest.raises(FedoelError) as caught:
        call(runtime, records, where)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


@pytest.fixture
def runtime(cache: Path, tmp_path: Path) -> FakeRuntime:
    return FakeRuntime(cache, TacticsPolicy("v1", np.zeros(tactics.DIMENSION, np.float32)), tmp_path / "seen")


def test_a_reply_counts_the_episodes_and_quotes_no_game(runtime: FakeRuntime) -> None:
    reply = call(runtime, signed(request()))
    vector = vector_from_reply(reply.content, SPEC)
    assert vector.counters.episodes.tolist() == [2]
    assert records_bytes(reply.content) <= 4096
    assert not reply.content.metric_records
    arrays = [array for record in reply.content.array_records.values() for array in record.values()]
    bytes_sent = b"".join(array.data for array in arrays)
    everything = bytes_sent + repr(reply.content.config_records).encode() + repr(reply.metadata).encode()
    for words in (b"coin", b"take", b"go ", b"-=", b"You "):
        assert words not in everything


def test_the_same_request_gets_the_same_answer(runtime: FakeRuntime) -> None:
    first, second = (call(runtime, signed(request())).content for _ in range(2))
    assert first.array_records["experience"] == second.array_records["experience"]


def test_what_the_game_does_not_take_lowers_the_returns_that_a_device_counts(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused_at_first(*arguments: Any) -> list[Trajectory]:
        played = play_episodes(*arguments)
        return [replace(each, turns=(replace(each.turns[0], refused=True), *each.turns[1:])) for each in played]

    monkeypatch.setattr(client_app, "play_episodes", refused_at_first)
    costly = replace(CONFIG, games=replace(CONFIG.games, refusal=0.5))
    free, paid = (
        vector_from_reply(call(runtime, signed(replace(request(), config=each.digest)), context(each)).content, SPEC)
        for each in (CONFIG, costly)
    )
    lost = free.counters.returns - paid.counters.returns
    assert lost[0] == pytest.approx([0.5 * CONFIG.games.per_client, *[0.0] * (SPEC.horizon - 1)], abs=1e-3)
    assert np.array_equal(paid.counters.values[:, :BASE_COUNTERS], free.counters.values[:, :BASE_COUNTERS])
    assert not np.array_equal(paid.gradient, free.gradient)


def test_a_device_plays_under_the_context_of_the_request(runtime: FakeRuntime) -> None:
    """Under weights that rule out every command but `look`, a device gives no other command."""
    weights = np.full(tactics.DIMENSION, -6.0, np.float32)
    looks = [cell for cell in range(tactics.DIMENSION) if tactics.tactic_name(cell).split(" ")[0] == "look"]
    weights[looks] = 6.0
    vectors = [
        vector_from_reply(call(runtime, signed(replace(request(), context=context))).content, SPEC)
        for context in (None, weights)
    ]
    verbs_without, verbs_under = ({int(i) // tactics.FACETS for i in np.flatnonzero(v.fisher > 0.01)} for v in vectors)
    assert len(verbs_without) > 1
    assert vectors[1].fisher.sum() < 0.01 < vectors[0].fisher.sum()
    assert len(verbs_under) <= 1


def test_a_failure_leaves_as_the_name_of_its_class(cache: Path, tmp_path: Path) -> None:
    assert failure(FakeRuntime(cache, Leaky(), tmp_path / "seen"), signed(request())) == "code: RuntimeError"


@pytest.mark.parametrize(
    "change", [{"codec": "prefix"}, {"vocabulary": SECRET}, {"dimension": 7}, {"families": (SECRET,)}]
)
def test_requests_it_cannot_serve_are_refused(runtime: FakeRuntime, change: dict[str, Any]) -> None:
    text = failure(runtime, signed(request(replace(SPEC, **change))))
    assert text.startswith("code: ")
    assert SECRET not in text


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": {"weights": np.ones(tactics.DIMENSION, np.float32)}},
        {"context": np.ones(tactics.DIMENSION, np.float32)},
        {"serial": 8},
        {"cycle": 2},
        {"spec": replace(SPEC, clipping_norm=1e6)},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
)
def test_a_request_that_was_changed_after_signing_is_refused(runtime: FakeRuntime, change: dict[str, Any]) -> None:
    changed = replace(sign_request(OWNER, replace(request(), serial=7)), **change)
    assert failure(runtime, request_to_records(changed)) == "code: VersionError"


@pytest.mark.parametrize("setting", [{"codec.name": "os:abort"}, {"games.families": "frozen-lake size=3 turns=4"}])
def test_settings_that_the_owner_has_not_signed_load_nothing(runtime: FakeRuntime, setting: dict[str, Any]) -> None:
    """Flower sends the run's configuration unsigned: whoever ends TLS could name code in it, or other games."""
    where = context(RunConfig.from_flat({**CONFIG.to_flat(), **setting}))
    assert failure(runtime, signed(request()), where) == "code: VersionError"


def test_a_machine_s_own_paths_are_not_signed(runtime: FakeRuntime) -> None:
    where = context(RunConfig.from_flat({**CONFIG.to_flat(), "out": "/srv/run", "cache": "/srv/cache", "resume": True}))
    assert call(runtime, signed(request()), where).has_content()


def test_parameters_of_a_codec_are_signed() -> None:
    parameters = {"whitening": np.ones((2, 64), np.float16)}
    given = sign_request(OWNER, replace(request(), parameters=parameters))
    check_request(OWNER.public_key().public_bytes_raw(), given)
    for changed in ({}, {"whitening": np.zeros((2, 64), np.float16)}, {"other": parameters["whitening"]}):
        with pytest.raises(VersionError, match="was changed"):
            check_request(OWNER.public_key().public_bytes_raw(), replace(given, parameters=changed))


def test_a_request_that_another_owner_has_signed_is_refused(runtime: FakeRuntime) -> None:
    foreign = sign_request(Ed25519PrivateKey.generate(), request())
    assert failure(runtime, request_to_records(foreign)) == "code: VersionError"


def test_a_request_with_an_older_serial_number_is_refused(runtime: FakeRuntime) -> None:
    """Also after a restart, because the last serial number is on the disk."""
    for serial in (3, 3, 5):
        call(runtime, signed(replace(request(), serial=serial)))
    assert failure(replace(runtime), signed(replace(request(), serial=4))) == "code: VersionError"


def test_a_node_with_a_store_logs_its_trajectories(runtime: FakeRuntime, tmp_path: Path) -> None:
    where, path = context(), tmp_path / "store.sqlite"
    where.node_config["store"] = str(path)
    call(runtime, signed(request()), where)
    store = TrajectoryStore(path, "client-0", key_from_file(tmp_path / "store.sqlite.key"))
    assert [row.trajectory.spec.family for row in store.read().rows] == ["coin-collector"] * 2
    assert [use.row for use in store.uses()] == [1, 2] and len({use.vector for use in store.uses()}) == 1
    where.node_config["store-megabytes"] = 0
    call(runtime, signed(replace(request(), serial=1)), where)
    assert [row.id for row in store.read().rows] == [3, 4], "old rows are deleted before new ones are added"


def test_malformed_requests_are_refused(runtime: FakeRuntime) -> None:
    assert failure(runtime, RecordDict()) == "code: VectorError"


def test_a_node_without_a_partition_is_refused(runtime: FakeRuntime) -> None:
    assert failure(runtime, signed(request()), context(client="0")) == "code: ConfigError"
    with pytest.raises(ConfigError, match="partition-id"):
        partition(context(client="0"))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        partition(context(client=2))


def test_an_unknown_setting_that_the_owner_has_not_signed_is_refused(runtime: FakeRuntime) -> None:
    where = context()
    where.run_config["secret"] = SECRET
    assert failure(runtime, signed(request()), where) == "code: VersionError"


def test_streams_differ_by_everything_and_repeat() -> None:
    everything = [*streams(0, 1, 0, 3), *streams(1, 1, 0, 3), *streams(0, 2, 0, 3), *streams(0, 1, 1, 3)]
    assert len(set(everything)) == 12
    assert streams(0, 1, 0, 3) == streams(0, 1, 0, 5)[:3]


def test_a_simulated_runtime_loads_tactics_and_refuses_unknown_backends() -> None:
    runtime, first = SimulatedRuntime(), request()
    assert runtime.policy(CONFIG, first).version == "v1"
    with pytest.raises(ModelError, match="weights"):
        runtime.policy(CONFIG, replace(first, adapter={"weights": np.zeros(3, np.float32)}))
    with pytest.raises(ConfigError, match="known are torch, llama, tactics"):
        runtime.policy(replace(CONFIG, policy=PolicyConfig(backend="magic")), first)
    assert runtime.cache(replace(CONFIG, cache="/somewhere")) == Path("/somewhere")


def test_a_deployed_device_differs_from_a_simulated_one_by_its_runtime(tmp_path: Path) -> None:
    """The node's configuration decides which runtime it is, and the run's decides whose keys it reads."""
    simulated, folder = SimulatedRuntime(), str(tmp_path)
    assert runtime_of({}, simulated) is simulated
    deployed = runtime_of({"home": folder}, simulated)
    assert (simulated.send_words, deployed.send_words) == (True, False)
    assert deployed.cache(replace(CONFIG, cache="/somewhere")) == tmp_path / "cache"
    simulated.admit(10**9)
    with pytest.raises(ConfigError, match="fedoel device join"):
        deployed.admit(0)
    run = replace(CONFIG, out=folder)
    fleet = replace(run, privacy=PrivacyConfig(keys="/fleet"))
    assert (RunMode.of(run), keys_folder(run)) == (RunMode.SIMULATION, tmp_path / "keys")
    assert (RunMode.of(fleet), keys_folder(fleet)) == (RunMode.DEPLOYMENT, Path("/fleet"))


def test_tactics_tilt_uniform_play() -> None:
    situation = Situation("find the coin", "", "", "", "", (), "", (), frozenset(), (), "", ("take coin", "look"), 0, 5)
    uniform = TacticsPolicy("v", np.zeros(tactics.DIMENSION, np.float32)).score([situation])[0]
    assert np.allclose(uniform, np.log(0.5))
    weights = np.zeros(tactics.DIMENSION, np.float32)
    weights[tactics.cells(situation)[0]] = 1.0
    tilted = TacticsPolicy("v", weights).score([situation])[0]
    assert tilted[0] > tilted[1]
    assert np.isclose(np.exp(tilted).sum(), 1, atol=1e-6)
