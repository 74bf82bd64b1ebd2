"""When a device plays: the owner's conditions, their cost, the count of games, and the version that it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from hypothesis import given
from hypothesis import strategies as st

from fedoel.cli.main import main
from fedoel.client.app import make_app
from fedoel.client.device import last_version
from fedoel.client.device.folder import membership_of
from fedoel.client.device.idle import Now, count_games, games_today, on_battery, why_not
from fedoel.client.device.offline import with_own_context
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.client.device.settings import Play
from fedoel.client.runtime import SimulatedRuntime
from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.protocol.config import CodecConfig, GamesConfig, PolicyConfig, PrivacyConfig, RunConfig, TrialConfig
from fedoel.protocol.errors import ConfigError, FedoelError, NotNow, VersionError
from fedoel.protocol.messages import PlayRequest, request_to_records, vector_from_reply
from fedoel.protocol.signing import sign_request
from fedoel.protocol.trials import ACTION, TrialTerms, sums_of
from fedoel.server.fleet import owner_key
from fedoel.simulations.grid import server_identity

from .conftest import Joined
from .fleet_of_devices import in_the_log

CONFIG = RunConfig(
    games=GamesConfig(families="frozen-lake size=3 turns=4", per_client=3), policy=PolicyConfig(backend="tactics")
)
NOON = Now(datetime(2026, 1, 2, 12, 0), 0.5, False, 900.0)


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def joined(joined: Joined) -> Joined:
    """A device that answers everything, so that what it sends can be read."""
    joined.device.settings.write_text("")
    return joined


def ask(
    joined: Joined,
    request: PlayRequest,
    config: RunConfig = CONFIG,
    logged: bool = False,
    action: str = "train.experience",
) -> Message:
    store = {"store": str(joined.device.store), "store-key": str(joined.device.store_key)} if logged else {}
    node: UserConfig = {"home": str(joined.device.path), "partition-id": 0, "num-partitions": 1, **store}
    context = Context(1, 1, node, RecordDict(), dict(config.to_flat()))
    keys = joined.server / "fleet"
    signed = in_the_log(keys, sign_request(owner_key(keys), replace(request, config=config.digest)))
    message = Message(request_to_records(signed), dst_node_id=2, message_type=action)
    return make_app(SimulatedRuntime())(message, context)


@pytest.mark.parametrize(
    ("play", "now", "played", "expected"),
    [
        (Play(), NOON, 10**6, ""),
        (Play(hours="09:00-17:00"), NOON, 0, ""),
        (Play(hours="22:00-07:00"), NOON, 0, "it is 12:00"),
        (Play(hours="22:00-07:00"), replace(NOON, clock=datetime(2026, 1, 2, 6, 59)), 0, ""),
        (Play(hours="22:00-07:00"), replace(NOON, clock=datetime(2026, 1, 2, 7, 0)), 0, "it is 07:00"),
        (Play(max_load=1.0), NOON, 0, ""),
        (Play(max_load=0.4), NOON, 0, "the load is 0.50"),
        (Play(max_load=0.4), replace(NOON, load=None), 0, ""),
        (Play(power="mains"), NOON, 0, ""),
        (Play(power="mains"), replace(NOON, on_battery=True), 0, "on battery"),
        (Play(power="mains"), replace(NOON, on_battery=None), 0, ""),
        (Play(games_a_day=9), NOON, 6, ""),
        (Play(games_a_day=9), NOON, 7, "7 games were played today"),
    ],
)
def test_conditions(play: Play, now: Now, played: int, expected: str) -> None:
    reason = why_not(play, 0, now, played, 3)
    assert expected in reason and bool(expected) == bool(reason)


def test_a_request_may_take_no_more_memory_than_is_free() -> None:
    assert "900 MB" in why_not(Play(), 901, NOON, 0, 1)
    assert not why_not(Play(), 900, NOON, 0, 1)


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_every_minute_is_either_in_a_window_or_in_the_rest_of_the_day(start: int, end: int, minute: int) -> None:
    if start == end:
        return
    times = [f"{at // 60:02}:{at % 60:02}" for at in (start, end)]
    now = replace(NOON, clock=datetime(2026, 1, 2, minute // 60, minute % 60))
    inside, outside = (not why_not(Play(hours="-".join(pair)), 0, now, 0, 1) for pair in (times, times[::-1]))
    assert inside != outside
    assert inside == ((minute - start) % 1440 < (end - start) % 1440)


def supplies(folder: Path, **values: dict[str, str]) -> Path:
    for name, words in values.items():
        (folder / name).mkdir(parents=True)
        for word, value in words.items():
            (folder / name / word).write_text(f"{value}\n")
    return folder


def test_the_source_of_power_is_read_from_linux(tmp_path: Path) -> None:
    battery = {"type": "Battery", "status": "Discharging"}
    assert on_battery(tmp_path / "nothing") is None
    assert on_battery(supplies(tmp_path / "a", AC={"type": "Mains", "online": "1"}, BAT0=battery)) is False
    assert on_battery(supplies(tmp_path / "b", AC={"type": "Mains", "online": "0"}, BAT0=battery)) is True
    assert on_battery(supplies(tmp_path / "c", BAT0={**battery, "status": "Full"})) is False
    assert on_battery(supplies(tmp_path / "d", mouse={**battery, "scope": "Device"})) is None


def test_games_are_counted_by_the_day(tmp_path: Path) -> None:
    path = tmp_path / "played.json"
    count_games(path, "2026-01-02", 3)
    count_games(path, "2026-01-02", 4)
    assert games_today(path, "2026-01-02") == 7
    assert games_today(path, "2026-01-03") == 0
    path.write_text("[damaged")
    assert games_today(path, "2026-01-02") == 0
    with pytest.raises(NotNow):
        count_games(path / "played.json", "2026-01-02", 1)  # `path` is a file


def test_a_device_plays_with_its_own_keys_counts_and_keeps_the_version(joined: Joined) -> None:
    request = joined.request()
    reply = ask(joined, request, replace(CONFIG, out="/server", cache="/server", policy=PolicyConfig("tactics", "/s")))
    assert vector_from_reply(reply.content, request.spec).counters.episodes.tolist() == [3]
    assert games_today(joined.device.played, f"{datetime.now():%Y-%m-%d}") == 3
    fleet_key = DeviceRuntime(joined.device.path).membership(CONFIG, 0).fleet_key
    config, kept = last_version.last_version(joined.device.versions, fleet_key)
    assert kept.spec.policy_version == "v1" and config.policy.backend == "tactics"
    assert np.array_equal(kept.adapter["weights"], request.adapter["weights"])


def test_a_kept_version_has_the_parameters_of_its_codec(joined: Joined) -> None:
    parameters = {"whitening": np.arange(6, dtype=np.float16).reshape(2, 3)}
    request = replace(joined.request(), parameters=parameters)
    last_version.keep(joined.device.versions, sign_request(owner_key(joined.server / "fleet"), request), CONFIG)
    fleet_key = DeviceRuntime(joined.device.path).membership(CONFIG, 0).fleet_key
    _, kept = last_version.last_version(joined.device.versions, fleet_key)
    assert np.array_equal(kept.parameters["whitening"], parameters["whitening"])


def test_a_refusal_takes_no_time_names_its_class_and_loads_nothing(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined.device.settings.write_text("[play]\ngames-a-day = 2\n")

    def never(*arguments: Any) -> None:
        raise AssertionError("loaded")

    for place in ("device.runtime.load_version", "app.load_encoder", "app.play_episodes"):
        monkeypatch.setattr(f"fedoel.client.{place}", never)
    with pytest.raises(FedoelError, match=r"^code: NotNow$"):
        ask(joined, joined.request())
    assert games_today(joined.device.played, f"{datetime.now():%Y-%m-%d}") == 0


def test_settings_are_read_for_every_request(joined: Joined) -> None:
    joined.device.settings.write_text("[play]\ngames-a-day = 2\n")
    with pytest.raises(FedoelError, match="NotNow"):
        ask(joined, joined.request())
    joined.device.settings.write_text("[play]\ngames-a-day = 3\n")
    ask(joined, joined.request())


def test_a_version_that_cannot_be_loaded_never_replaces_one_that_could(joined: Joined) -> None:
    ask(joined, joined.request("v1", 1))
    with pytest.raises(FedoelError, match="ModelError"):
        ask(joined, unusable(joined))
    fleet_key = DeviceRuntime(joined.device.path).membership(CONFIG, 0).fleet_key
    assert last_version.last_version(joined.device.versions, fleet_key)[1].spec.policy_version == "v1"


def unusable(joined: Joined) -> PlayRequest:
    """Ask for a version whose adapter does not fit, signed all the same."""
    empty = replace(joined.request("v2", 2), adapter={})
    return sign_request(owner_key(joined.server / "fleet"), empty)


def test_the_version_before_is_read_if_the_last_one_is_damaged(joined: Joined) -> None:
    folder = joined.device.versions
    fleet_key = DeviceRuntime(joined.device.path).membership(CONFIG, 0).fleet_key
    for serial, version in enumerate(("v1", "v2", "v2"), 1):
        last_version.keep(folder, joined.request(version, serial), CONFIG)
    assert last_version.last_version(folder, fleet_key)[1].spec.policy_version == "v2"
    (folder / "last.npz").write_bytes((folder / "last.npz").read_bytes()[:500])
    assert last_version.last_version(folder, fleet_key)[1].spec.policy_version == "v1"
    last_version.keep(folder, replace(joined.request("v3", 4), signature=bytes(64)), CONFIG)
    (folder / "before.npz").unlink()
    with pytest.raises(VersionError):
        last_version.last_version(folder, fleet_key)


@pytest.mark.parametrize("step", range(1, 7))
def test_a_crash_while_a_version_is_kept_leaves_that_version_or_the_one_before(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Two files are written, each in three steps: its content, the rename, and the folder."""
    folder, calls = joined.device.versions, list[str]()
    fleet_key = DeviceRuntime(joined.device.path).membership(CONFIG, 0).fleet_key
    last_version.keep(folder, joined.request("v1", 1), CONFIG)
    request = joined.request("v2", 2)

    def crash(name: str) -> Any:
        original = getattr(os, name)

        def call(*arguments: Any) -> None:
            calls.append(name)
            if len(calls) == step:
                raise KeyboardInterrupt
            original(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, crash(name))
        with pytest.raises(KeyboardInterrupt):
            last_version.keep(folder, request, CONFIG)
    assert calls == ["fsync", "replace", "fsync", "fsync", "replace", "fsync"][:step]
    version = last_version.last_version(folder, fleet_key)[1].spec.policy_version
    assert version == ("v2" if step == 6 else "v1")


def test_the_last_version_plays_without_a_network(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["play", "--device", str(joined.device.path)]
    assert main(words) == 2
    assert "no version has been played yet" in capsys.readouterr().err
    ask(joined, joined.request())
    assert main(words) == 0
    assert "played by v1" in capsys.readouterr().out


def test_a_personal_context_is_learned_from_play_with_the_last_version(
    joined: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["play", "--device", str(joined.device.path), "--personal"]
    ask(joined, joined.request())
    assert main(words) == 0
    assert "played by v1\n" in capsys.readouterr().out  # it keeps no log
    ask(joined, joined.request("v2", 2), logged=True)
    assert main(words) == 0
    assert "played by v2+context" in (once := capsys.readouterr().out)
    ask(joined, joined.request("v2", 3), logged=True)
    assert main(words) == 0
    assert capsys.readouterr().out == once  # games that were requested twice count once
    ask(joined, joined.request("v3", 4))
    assert main(words) == 0
    assert "played by v3\n" in capsys.readouterr().out  # its log is of another version


def test_only_tactics_and_only_devices_have_personal_contexts(
    joined: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    other, policy = (
        replace(CONFIG, codec=CodecConfig(name="steering")),
        TacticsPolicy("v1", np.zeros(DIMENSION, np.float32)),
    )
    with pytest.raises(ConfigError, match="must be 'tactics'"):
        with_own_context(joined.device, other, joined.request(), policy)
    assert main(["play", "--personal"]) == 2
    assert "say --device, too" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bound memory in other ways, or not at all")
def test_a_request_takes_no_more_memory_than_its_owner_allows(tmp_path: Path) -> None:
    code = """
from fedoel.client.device.runtime import _limit_memory
_limit_memory(300)
bytearray(100_000_000)
try:
    bytearray(400_000_000)
except MemoryError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_deployed_device_sends_no_words_whatever_the_run_says(joined: Joined) -> None:
    plain = replace(CONFIG, codec=CodecConfig(name="text"), privacy=PrivacyConfig(allow_plaintext=True))
    with pytest.raises(FedoelError, match="code: ConfigError"):
        ask(joined, joined.request(), plain)


def test_a_candidate_never_becomes_the_last_version(joined: Joined) -> None:
    """What a trial brings is not promoted yet: an owner goes on playing the version of the last request before."""
    config = replace(CONFIG, trial=TrialConfig(games=2))
    ask(joined, joined.request("v1", 1), config)
    known = joined.request("v2", 2)
    spec = TrialTerms(2, 2.0, True, "v3").spec("v2", ("frozen-lake",))
    candidate = {"weights": np.ones(DIMENSION, np.float32)}
    unsigned = replace(known, spec=spec, baseline=None, candidate=candidate, signature=b"")
    request = sign_request(owner_key(joined.server / "fleet"), unsigned)
    reply = ask(joined, request, config, action=ACTION)
    assert sums_of(vector_from_reply(reply.content, spec))[0, 2] == pytest.approx(2, abs=0.01)
    _, last = last_version.last_version(joined.device.versions, membership_of(joined.device).fleet_key)
    assert last.spec.policy_version == "v1" and not last.candidate
    assert games_today(joined.device.played, f"{datetime.now():%Y-%m-%d}") == 3 + 4
