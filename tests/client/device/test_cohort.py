"""How many members a device insists on, which of them it counts, and whose noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fedoel.client.device.runtime import DeviceRuntime
from fedoel.client.device.settings import DeviceSettings, read_settings, settings_file
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.fleet.enrolment import card_from_text
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.privacy.concentrated import epsilon_of, rho_of
from fedoel.protocol.trials import TrialTerms

from .fleet_of_devices import EVERYBODY, WITHOUT_ZERO, Devices, SecureRound, set_trust


def test_a_device_counts_the_members_that_it_has_checked_and_not_what_the_terms_say(devices: Devices) -> None:
    set_trust(devices, least_cohort=5)
    small = SecureRound(devices, devices.request(), range(4), 1, minimum=4).run_to()
    assert small.refused == dict.fromkeys(range(4), "keys: CohortTooSmall")
    large = SecureRound(devices, devices.request(), EVERYBODY, 2, minimum=5)
    large.refused = {4: "was never asked"}
    large.run_to()
    assert {large.refused[number] for number in range(4)} == {"shares: SecureSumError"}
    assert not SecureRound(devices, devices.request(), EVERYBODY, 3, minimum=5).run_to().refused


def knows(devices: Devices, number: int, others: Sequence[int], **settings: Any) -> None:
    """Write down which devices the owner of one knows."""
    cards = [card_from_text((devices.device(other).path / f"d{other}.pub").read_text()) for other in others]
    trust = replace(Trust(), known=" ".join(card.identity for card in cards), **settings)
    devices.device(number).settings.write_text(settings_file(DeviceSettings(trust=trust)))


def test_devices_that_the_fleet_s_owner_has_made_up_count_as_colluding(devices: Devices) -> None:
    """Whoever has the fleet's key makes members of his own; a sum over one device and four of these is its vector."""
    knows(devices, 0, [1])
    first = SecureRound(devices, devices.request(), EVERYBODY, 1).run_to("shares")
    assert first.refused == {0: "shares: TooManyStrangers"}
    knows(devices, 0, [1, 2, 3])  # one stranger of five: a third may collude
    assert not SecureRound(devices, devices.request(), EVERYBODY, 2).run_to().refused


def test_the_smallest_cohort_counts_known_devices_only(devices: Devices) -> None:
    knows(devices, 0, [1, 2, 3], least_cohort=4)
    some = SecureRound(devices, devices.request(), EVERYBODY, 1, minimum=4).run_to("shares")
    some.refused = {3: "cut off by the server"}
    some.run_to(first="masked")
    assert some.refused[0] == "confirm: CohortTooSmall"


def test_a_key_that_is_none_is_refused_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r"trust\.known has 'd1\.pub': give the 64 digits of `identity`"):
        Trust(known="d1.pub")


def test_only_the_noise_of_known_devices_counts_where_the_owner_names_them(devices: Devices) -> None:
    """Three of its four neighbours open its mask; of them, one may be a stranger, which need not add noise."""
    knows(devices, 0, [1, 2, 3], verbs="masked", least_noise=1.0)
    bare = SecureRound(devices, devices.request(), EVERYBODY, 1, noise=1.1, minimum=4).run_to("masked")
    assert bare.refused == {0: "masked: TooLittleNoise"}, "1.1 are of four devices, and 0.95 of three"
    enough = SecureRound(devices, devices.request(), EVERYBODY, 2, noise=1.2, minimum=4).run_to()
    assert not enough.refused
    spent = DeviceRuntime(devices.device(0).path).contributions.epsilon(1e-6)
    assert spent == pytest.approx(epsilon_of(rho_of(1.2 * math.sqrt(3 / 4)), 1e-6), rel=1e-3)
    knows(devices, 0, [1, 2, 3, 4], verbs="masked", least_noise=1.0)
    devices.restart([0])
    assert not SecureRound(devices, devices.request(cycle=2), EVERYBODY, 3, noise=1.0, minimum=4).run_to().refused


def test_a_trial_may_have_a_smallest_cohort_of_its_own(devices: Devices) -> None:
    """The fleet asks parts of its devices for trials, and sums of experience need not be as small as these."""
    trust = read_settings(devices.device(0).settings).trust
    assert (trust.least_cohort, trust.least_trial) == (4, 3)
    small = SecureRound(devices, devices.request(), WITHOUT_ZERO, 1, minimum=3).run_to()
    assert small.refused == dict.fromkeys(WITHOUT_ZERO, "keys: CohortTooSmall")
    asked = devices.request(spec=TrialTerms(2, 2.0, True, "v2").spec("v1", ("frozen-lake",)), baseline=None)
    assert not SecureRound(devices, asked, WITHOUT_ZERO, 2, minimum=3).run_to("shares").refused
    set_trust(devices, least_cohort=4)
    third = SecureRound(devices, asked, WITHOUT_ZERO, 3, minimum=3).run_to("shares")
    assert third.refused == dict.fromkeys(WITHOUT_ZERO, "keys: CohortTooSmall"), "no number is the same number"


def test_a_sum_of_experience_is_not_as_small_as_a_trial_because_its_terms_say_that_it_is_one(devices: Devices) -> None:
    set_trust(devices, least_cohort=5, least_trial=4)
    claimed = SecureRound(devices, devices.request(), EVERYBODY, 1)
    subject = claimed.terms.subject.rpartition(" ")[0]
    claimed.terms = replace(claimed.terms, subject=f"{subject} 1.trial-0123456789abcdef")
    claimed.server.terms = claimed.terms
    assert claimed.run_to("masked").refused == dict.fromkeys(EVERYBODY, "masked: SecureSumError")


@pytest.mark.parametrize(("gone", "phase"), [("shares", "masked"), ("masked", "confirm")])
def test_a_device_counts_again_in_every_phase(devices: Devices, gone: str, phase: str) -> None:
    """The minimum of the terms is met, but by devices whose keys nobody has checked."""
    set_trust(devices, least_cohort=4, colluding=0.0)
    some = SecureRound(devices, devices.request(), EVERYBODY, 1, minimum=4).run_to("keys")
    if gone == "masked":
        some.run_to("shares", first="shares")
    some.refused = dict.fromkeys((3, 4), "silent")
    some.run_to(first=gone)
    assert {some.refused[number] for number in range(3)} == {f"{phase}: SecureSumError"}
