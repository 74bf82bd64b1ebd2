"""What a server that has all keys of its fleet, and keeps to no rule, does not get from a device."""

from __future__ import annotations

import copy
import stat
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from fedoel.cli.main import main
from fedoel.client import app as client_app
from fedoel.client.app import experience_of, private_games
from fedoel.client.device.folder import open_store
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.client.device.settings import read_settings
from fedoel.client.runtime import SimulatedRuntime
from fedoel.games.splits import SECRET_GAMES
from fedoel.protocol.errors import FedoelError, SecureSumError, TrustError
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.messages import PlayRequest, request_to_records
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.protocol.secagg.messages import ACTIONS, RECORD, Step, exchange_of
from fedoel.protocol.trials import TrialTerms

from .fleet_of_devices import EVERYBODY, SPEC, WITHOUT_ZERO, Devices, SecureRound, set_trust


def plan(noise: float, minimum: int = 1) -> str:
    return PrivacyPlan.make((Part("gradient", SPEC.dimension, SPEC.clipping_norm, 1.0),), 5, minimum, noise).to_json()


# A vector by itself


def test_a_device_of_a_secure_fleet_answers_no_request_with_its_vector_by_itself(devices: Devices) -> None:
    """Whoever reaches the SuperLink may send the signed request of a secure sum again, as another verb."""
    request = devices.request()
    SecureRound(devices, request, EVERYBODY, 1).run_to()
    trial = devices.request(spec=TrialTerms(2, 2.0, True, "v2").spec("v1", ("frozen-lake",)), baseline=None)
    for records in (request_to_records(request), request_to_records(trial)):
        for verb in ("train.experience", "evaluate.trial"):
            with pytest.raises(FedoelError, match=r"^code: VerbRefused$"):
                devices.send(0, verb, records)


def test_the_run_that_a_server_sends_changes_nothing_of_it(devices: Devices) -> None:
    devices.restart([0], **{"strategy.name": "mean"})
    with pytest.raises(FedoelError, match="VerbRefused"):
        devices.gradient(0, devices.request())


def test_a_refusal_loads_nothing(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("loaded")

    for place in ("load_encoder", "play_episodes"):
        monkeypatch.setattr(client_app, place, never)
    monkeypatch.setattr(DeviceRuntime, "policy", never)
    with pytest.raises(FedoelError, match="VerbRefused"):
        devices.gradient(0, devices.request())
    devices.restart([0], **{"codec.name": "evil_module:Encoder"})
    assert SecureRound(devices, devices.request(), [0, 1, 2], 1).run_to("keys").refused[0] == "keys: CodecRefused"


# One contribution for each exchange


def test_two_rounds_for_one_exchange_do_not_differ_by_a_device(devices: Devices) -> None:
    """The difference of their sums would be the vector of the device that is missing in one of them."""
    request = devices.request()
    assert not SecureRound(devices, request, EVERYBODY, 1).run_to().refused
    for number, again in enumerate((request, devices.request()), start=2):  # a new one, as a server makes after a crash
        devices.restart(EVERYBODY)  # nodes of a new run of Flower have no state
        second = SecureRound(devices, again, WITHOUT_ZERO, number, minimum=4).run_to()
        assert second.refused == dict.fromkeys(WITHOUT_ZERO, "keys: AlreadyContributed")


def test_two_exchanges_of_a_cycle_without_noise_do_not_differ_by_a_device(devices: Devices) -> None:
    """They are of the same games; an honest server asks a device in one of them only."""
    SecureRound(devices, devices.request(), EVERYBODY, 1).run_to()
    second = SecureRound(devices, devices.request(exchange=2), WITHOUT_ZERO, 2, minimum=4).run_to()
    assert second.refused == dict.fromkeys(WITHOUT_ZERO, "masked: AlreadyContributed")
    assert not SecureRound(devices, devices.request(cycle=2), EVERYBODY, 3).run_to().refused


def test_in_another_run_a_device_plays_other_games(devices: Devices) -> None:
    """A server names its runs as it likes, and may ask for the same cycle again under another name.

    Who has no key of the fleet cannot: the signed request that it has seen is of one run.
    """
    request = devices.request()
    everybody = SecureRound(devices, request, EVERYBODY, 1).run_to().sum()
    replayed = SecureRound(devices, request, WITHOUT_ZERO, 1, run="bc", minimum=4).run_to()
    assert replayed.refused == dict.fromkeys(WITHOUT_ZERO, "masked: AlreadyContributed")
    others = SecureRound(devices, devices.request(), WITHOUT_ZERO, 1, run="cd", minimum=4).run_to()
    assert not others.refused
    [first] = [vector_of(devices, 0, "ab")]
    assert np.allclose(everybody, sum(vector_of(devices, number, "ab") for number in EVERYBODY), atol=0.05)
    assert not np.allclose(everybody - others.sum(), first, atol=0.05)


def vector_of(devices: Devices, number: int, run: str) -> Any:
    """Return what a device sends, from its own secret."""
    secret = DeviceRuntime(devices.device(number).path).game_secret(0, run)
    config, request = devices.config, devices.request()
    experience = experience_of(config, request, number, number + 1, SimulatedRuntime(), secret=secret)
    return experience.vector.clipped().gradient.astype(float)


def test_a_repeated_step_gets_the_same_answer_and_no_second_one(devices: Devices) -> None:
    """An answer that was lost is asked for again in the same round; a device that has lost its state is out."""
    begun = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("masked")
    assert begun.step(0, "masked") == begun.server.masked[0].tobytes()
    devices.contexts[1].state.clear()
    begun.run_to("unmask", first="confirm")
    assert begun.refused == {1: "confirm: SecureSumError"}
    again = SecureRound(devices, begun.request, EVERYBODY, 1).run_to("keys")
    assert again.refused.pop(1) == "keys: SecureSumError"  # the round has begun before


def test_a_device_whose_process_died_behind_its_signature_signs_no_other_survivors(devices: Devices) -> None:
    """Flower (1.41) sends an answer before it keeps the state that was made with it.

    A device that dies between the two has signed a set of survivors and does not know it: a server that tells it
    another one would get a second signature, and with it what opens the device's neighbours' other mask.
    """
    begun = SecureRound(devices, devices.request(), EVERYBODY, 1, minimum=4).run_to("masked")
    before = copy.deepcopy(devices.contexts[1].state)
    everybody = begun.server.survivors
    first = begun.step(1, "confirm")
    devices.contexts[1].state = copy.deepcopy(before)
    assert begun.step(1, "confirm") == first, "the same set is signed again"
    devices.contexts[1].state = before
    del begun.server.masked[0]
    assert begun.server.survivors != everybody
    with pytest.raises(FedoelError, match="code: SecureSumError"):
        begun.step(1, "confirm")


def test_a_device_whose_process_died_behind_its_shares_hands_out_no_others(devices: Devices) -> None:
    """In a large cohort, neighbours of one draw could hear that it survived, and those of another that it did not."""
    begun = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("keys")
    before = copy.deepcopy(devices.contexts[0].state)
    begun.step(0, "shares")
    devices.contexts[0].state = before
    with pytest.raises(FedoelError, match="code: SecureSumError"):
        begun.step(0, "shares")


def test_whoever_carries_messages_chooses_neither_a_cohort_nor_the_number_of_a_round(
    devices: Devices,
) -> None:
    """Terms that the fleet's key has not signed begin nothing, and leave nothing behind that the next round meets."""
    request = devices.request()
    signed = SecureRound(devices, request, EVERYBODY, 1).terms
    for forged in (replace(signed, number=2**62), replace(signed, cohort=4, neighbours=3, minimum=3)):
        step = Step(forged.digest, forged.to_json().encode(), bytes(2) + devices.signature(signed))
        with pytest.raises(FedoelError, match="VersionError"):
            devices.send(0, ACTIONS["keys"], RecordDict({RECORD: step.to_record()}))
    unsigned = Step(signed.digest, signed.to_json().encode(), bytes(2))  # as an earlier release sends it
    with pytest.raises(FedoelError, match="ReleaseRefused"):
        devices.send(0, ACTIONS["keys"], RecordDict({RECORD: unsigned.to_record()}))
    devices.restart(EVERYBODY)
    assert not SecureRound(devices, request, EVERYBODY, 1).run_to().refused


def test_all_devices_of_a_round_answer_one_request(devices: Devices) -> None:
    """Others under a context that makes their gradients zero would leave the sum to the one that plays without it."""
    context = np.full(SPEC.dimension, 1e4, np.float32)
    mine, theirs = devices.request(), devices.request(context=context)
    found = SecureRound(devices, mine, EVERYBODY, 1).run_to("shares")
    for position in EVERYBODY:
        found.request = mine if position == 0 else theirs
        if position == 0:
            found.server.take_masked(position, found.step(position, "masked"))
        else:
            with pytest.raises(FedoelError, match="SecureSumError"):
                found.step(position, "masked")


def test_an_honest_server_asks_again_for_an_exchange_whose_round_nobody_can_open(devices: Devices) -> None:
    """It crashed after devices had answered, or too few were left: the old round is dead, and the new one counts."""
    lost = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("masked")
    devices.restart(EVERYBODY)
    found = SecureRound(devices, devices.request(), EVERYBODY, 2).run_to()
    assert not found.refused and np.linalg.norm(found.sum()) > 0
    for position in EVERYBODY:  # nobody goes on with the old one
        lost.devices.contexts[position].state["secure-sum"] = found.devices.contexts[position].state["secure-sum"]
        with pytest.raises(FedoelError, match="SecureSumError"):
            lost.step(position, "confirm")


def test_nobody_continues_a_round_whose_state_it_still_has_after_it_began_a_later_one(devices: Devices) -> None:
    """Flower keeps a state for each of its runs, and a server can go back to one."""
    lost = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("masked")
    before = dict(devices.contexts)
    devices.restart(EVERYBODY)
    SecureRound(devices, devices.request(), EVERYBODY, 2).run_to("keys")
    devices.contexts = before
    lost.run_to("confirm", first="confirm")
    assert lost.refused == dict.fromkeys(EVERYBODY, "confirm: SecureSumError")


def test_a_masked_vector_that_others_can_still_open_is_the_last_one(devices: Devices) -> None:
    """Device 0 has not confirmed round 1, but the others can open it without device 0, which stays out of round 2."""
    first = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("masked")
    devices.restart([0])
    first.run_to("unmask", first="confirm")
    assert list(first.refused) == [0] and np.linalg.norm(first.sum()) > 0
    second = SecureRound(devices, devices.request(), EVERYBODY, 2).run_to()
    assert {second.refused[number] for number in WITHOUT_ZERO} == {"keys: AlreadyContributed"}
    assert 0 in second.refused
    few = SecureRound(devices, devices.request(), EVERYBODY, 3)
    few.refused = dict.fromkeys([3, 4], "not asked")
    assert few.run_to("keys").refused.keys() == set(WITHOUT_ZERO)


def test_a_device_answers_again_only_if_a_threshold_of_its_neighbours_has_left_the_first_round(
    devices: Devices,
) -> None:
    """Of five neighbours, four of whose shares open a mask: three that have left are too few."""
    devices = Devices.make(devices.folder.parent / "six", 7)
    first = SecureRound(devices, devices.request(), range(6), 1).run_to("masked")
    assert (first.terms.neighbours, first.terms.threshold) == (5, 4)
    strangers = SecureRound(devices, devices.request(), [0, 1, 2, 3, 6], 2).run_to()
    assert strangers.refused[0] == "masked: AlreadyContributed"
    assert not SecureRound(devices, devices.request(), range(6), 3).run_to().refused


def test_a_device_takes_part_in_so_many_rounds_of_one_exchange_as_its_owner_allows(devices: Devices) -> None:
    """An honest server makes a lost round again; one that cheats draws new neighbours with every round."""
    set_trust(devices, verbs="masked", rounds=2)
    for number in (1, 2):  # too few are ready: nobody has handed out anything
        assert not SecureRound(devices, devices.request(), EVERYBODY, number).run_to("keys").refused
    for number in (3, 4):
        begun = SecureRound(devices, devices.request(), EVERYBODY, number).run_to("shares")
        assert begun.step(0, "shares") == begun.step(0, "shares"), "a repeated request is no further round"
        devices.restart(EVERYBODY)
    tired = SecureRound(devices, devices.request(), EVERYBODY, 5).run_to()
    assert tired.refused == dict.fromkeys(EVERYBODY, "keys: TooManyRounds")
    said = DeviceRuntime(devices.device(0).path).contributions.refusals()[1][0].sentence
    assert said == "the server has made 2 rounds of exchange 1 of cycle 1, and trust.rounds is 2"
    assert not SecureRound(devices, devices.request(cycle=2), EVERYBODY, 6).run_to().refused
    set_trust(devices, verbs="masked", rounds=0)
    assert not SecureRound(devices, devices.request(), EVERYBODY, 7).run_to().refused


def test_rounds_that_were_begun_before_the_last_one_was_allowed_share_no_more(devices: Devices) -> None:
    """In states of two nodes with one record, as of two runs of Flower."""
    set_trust(devices, verbs="masked", rounds=1)
    first = SecureRound(devices, devices.request(), EVERYBODY, 1, run="ab").run_to("keys")
    first.run_to("shares", first="shares")
    assert not first.refused
    record, second = DeviceRuntime(devices.device(0).path).contributions, replace(first.terms, number=2)
    with pytest.raises(TrustError, match=r"trust\.rounds is 1"):
        record.share(second, Trust(rounds=1))
    record.share(second, Trust())
    with pytest.raises(SecureSumError, match="handed out shares in this round before"):
        record.share(second, Trust())
    record.share(replace(first.terms, run="cd"), Trust(rounds=1))


def test_a_trial_is_answered_once_for_each_thing_that_is_tried(devices: Devices) -> None:
    """With noise, each part of a fleet is drawn from all devices, and every request is a trial of its own."""
    weights = np.ones(SPEC.dimension, np.float32)

    def trial(noise: float = 0.0, **changed: Any) -> PlayRequest:
        spec = TrialTerms(2, 2.0, not noise, changed.pop("name", "")).spec("v1", ("frozen-lake",))
        return devices.request(spec=spec, baseline=None, exchange=2, **changed)

    of_context, of_candidate = trial(context=weights), trial(name="v2", candidate={"weights": weights})
    again, half = trial(context=weights), trial(context=weights / 2)
    assert exchange_of(of_context) == exchange_of(again) != exchange_of(half) != exchange_of(of_candidate)
    assert exchange_of(trial(1.0, context=weights)) != exchange_of(trial(1.0, context=weights))
    for number, request in enumerate((of_context, of_candidate, half), start=1):
        assert not SecureRound(devices, request, EVERYBODY, number).run_to().refused
    assert set(SecureRound(devices, again, EVERYBODY, 4).run_to().refused.values()) == {"keys: AlreadyContributed"}
    bare = SecureRound(devices, trial(1.0, context=weights), EVERYBODY, 5).run_to()
    assert set(bare.refused.values()) == {"masked: SecureSumError"}
    for number in (6, 7):
        noisy = SecureRound(devices, trial(1.0, context=weights), EVERYBODY, number, noise=1.0).run_to()
        assert not noisy.refused


# Noise and epsilon


def test_a_device_that_asks_for_noise_sends_no_bare_vector(devices: Devices) -> None:
    set_trust(devices, verbs="experience trial masked", least_noise=1.0)
    for text in ("", plan(0.0), plan(0.99), plan(1.9, minimum=4)):
        with pytest.raises(FedoelError, match=r"^code: TooLittleNoise$"):
            devices.gradient(0, devices.request(plan=text), noisy=True)
    devices.gradient(0, devices.request(plan=plan(1.0)), noisy=True)
    bare = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to()
    assert bare.refused == dict.fromkeys(EVERYBODY, "masked: TooLittleNoise")
    assert not SecureRound(devices, devices.request(), EVERYBODY, 2, noise=1.1).run_to().refused


def test_noise_is_that_of_devices_whose_keys_were_checked(devices: Devices) -> None:
    """A device adds nothing to a sum of five, by the terms, of whom it has seen the keys of four."""
    set_trust(devices, least_noise=1.0)
    said = SecureRound(devices, devices.request(), EVERYBODY, 1, noise=1.05, minimum=5)
    assert said.terms.threshold == 3 and said.plan.noise_of(4) < 1.0 < said.plan.noise_of(5)
    said.refused[4] = "not asked"
    assert said.run_to().refused == {4: "not asked", **dict.fromkeys(range(4), "masked: SecureSumError")}
    assert not SecureRound(devices, devices.request(), EVERYBODY, 2, noise=1.05, minimum=5).run_to().refused
    fewer = SecureRound(devices, devices.request(exchange=2), EVERYBODY, 3, noise=0.99, minimum=4).run_to()
    assert fewer.refused == dict.fromkeys(EVERYBODY, "masked: TooLittleNoise")


def test_one_request_has_one_answer_with_noise(devices: Devices) -> None:
    """The mean of sixty answers would have an eighth of the noise."""
    set_trust(devices)
    request = devices.request(plan=plan(5.0))
    devices.gradient(0, request, noisy=True)
    for _ in range(3):
        devices.restart([0])
        with pytest.raises(FedoelError, match=r"^code: AlreadyContributed$"):
            devices.gradient(0, request, noisy=True)


def test_the_epsilon_of_a_year_is_spent_once_over_all_runs_and_restarts(devices: Devices) -> None:
    """Noise multiplier 5 costs 0.92 once, 1.32 twice and 1.63 three times, at delta 1e-6."""
    set_trust(devices, epsilon_a_year=1.5)
    for serial in range(2):
        devices.restart([0], name=f"run {serial}")
        devices.gradient(0, devices.request(plan=plan(5.0)), noisy=True)
    for asked in (plan(5.0), plan(0.0), ""):
        with pytest.raises(FedoelError, match=r"^code: EpsilonSpent$"):
            devices.gradient(0, devices.request(plan=asked), noisy=True)
    secure = SecureRound(devices, devices.request(), EVERYBODY, 1, noise=5.0).run_to()
    assert secure.refused[0] == "masked: EpsilonSpent"


def test_what_was_spent_is_written_down_before_it_leaves(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    set_trust(devices, epsilon_a_year=8.0)

    def crash(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client_app, "reply_to_records", crash)
        with pytest.raises(KeyboardInterrupt):
            devices.gradient(0, devices.request(plan=plan(1.0)), noisy=True)
    assert DeviceRuntime(devices.device(0).path).contributions.epsilon(1e-6) == pytest.approx(5.2, abs=0.1)


# Games


def test_nobody_but_the_device_can_tell_its_games_or_how_it_plays_them(devices: Devices) -> None:
    secrets = [DeviceRuntime(devices.device(number).path).game_secret(0, "ab") for number in (0, 1)]
    assert len({*secrets, DeviceRuntime(devices.device(0).path).game_secret(0, "cd")}) == 3
    assert DeviceRuntime(devices.device(0).path).game_secret(0, "ab") == secrets[0]
    config = devices.config
    public, streams = private_games(config, 1, 0, 5)
    own, own_streams = private_games(config, 1, 0, 5, secrets[0])
    assert [spec for spec, _ in public] == [spec for spec, _ in own]
    assert not {*streams} & {*own_streams} and not {seed for _, seed in public} & {seed for _, seed in own}
    for cycle in range(1, 50):
        games, _ = private_games(config, cycle, 0, 5, secrets[0])
        assert all(seed in SECRET_GAMES for _, seed in games)
    assert private_games(config, 1, 0, 5, secrets[0]) == (own, own_streams)


def test_a_device_plays_the_games_of_its_own_key(devices: Devices) -> None:
    folder = devices.device(0)
    devices.contexts[0].node_config.update({"store": str(folder.store), "store-key": str(folder.store_key)})
    SecureRound(devices, devices.request(), EVERYBODY, 1).run_to()
    played = [row.trajectory.seed for row in open_store(folder).read().rows]
    games, _ = private_games(devices.config, 1, 0, 1, DeviceRuntime(folder.path).game_secret(0, "ab"))
    assert played == [seed for _, seed in games]
    assert stat.S_IMODE(folder.game_key.stat().st_mode) == stat.S_IMODE(folder.record.stat().st_mode) == 0o600


def test_a_device_of_an_earlier_release_draws_its_key_when_it_first_needs_it(devices: Devices) -> None:
    folder = devices.device(0)
    folder.game_key.unlink()
    first = DeviceRuntime(folder.path).game_secret(0, "ab")
    assert DeviceRuntime(folder.path).game_secret(0, "ab") == first and folder.game_key.exists()


# What the owner sees


def test_the_owner_sees_what_the_device_answers_has_spent_and_has_refused(
    devices: Devices, capsys: pytest.CaptureFixture[str]
) -> None:
    set_trust(devices, verbs="experience", least_noise=1.0, epsilon_a_year=6.0)
    devices.gradient(0, devices.request(plan=plan(1.0)), noisy=True)
    for asked in (plan(1.0), plan(0.0), plan(0.0)):
        with pytest.raises(FedoelError):
            devices.gradient(0, devices.request(plan=asked), noisy=True)
    main(["device", "status", str(devices.device(0).path)])
    said = capsys.readouterr().out
    assert "it sends its vector by itself, with noise of its own" in said
    assert "epsilon: 5.2" in said and "refused: EpsilonSpent 1, TooLittleNoise 2" in said
    assert "TooLittleNoise: the noise multiplier is 0, and trust.least-noise is 1" in said
    assert main(["device", "wipe", str(devices.device(0).path), "--yes"]) == 0
    assert f"kept: {devices.device(0).record}" in capsys.readouterr().out
    assert DeviceRuntime(devices.device(0).path).contributions.epsilon(1e-6) > 5


def test_a_record_that_cannot_be_read_lets_nothing_leave(devices: Devices) -> None:
    set_trust(devices)
    devices.device(0).record.write_bytes(b"no database, but long enough to be taken for one" * 100)
    assert SecureRound(devices, devices.request(), EVERYBODY, 1).run_to().refused == {0: "keys: StoreError"}
    with pytest.raises(FedoelError, match="StoreError"):
        devices.gradient(0, devices.request(plan=plan(1.0)), noisy=True)


def test_settings_of_earlier_releases_refuse_nothing(devices: Devices) -> None:
    """They have no `[trust]`, and their fleets go on as before."""
    devices.device(0).settings.write_text("[play]\nhours = ''\n")
    assert read_settings(devices.device(0).settings).trust == Trust()
    devices.gradient(0, devices.request())
    assert not SecureRound(devices, devices.request(), EVERYBODY, 1).run_to().refused
