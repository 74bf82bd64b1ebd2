"""What a device's owner allows: one check, a code for each refusal, and the same in words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fedoel.protocol.errors import ConfigError, TrustError
from fedoel.protocol.fleet.trust import VERBS, Asked, Refusal, Trust

STRICT = Trust(verbs="masked", least_cohort=5, least_noise=1.0, epsilon_a_year=8.0, codecs="tactics embedding")
FITS = Asked("masked", "tactics", 5, 1.0)


def test_open_settings_refuse_nothing() -> None:
    for verb in VERBS:
        Trust().check(Asked(verb, "module:Codec", None if verb != "masked" else 2, 0.0))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (replace(FITS, verb="experience"), Refusal.VERB),
        (replace(FITS, verb="trial"), Refusal.VERB),
        (replace(FITS, codec="tac"), Refusal.CODEC),
        (replace(FITS, codec="text"), Refusal.CODEC),
        (replace(FITS, cohort=4), Refusal.COHORT),
        (replace(FITS, noise=0.99), Refusal.NOISE),
        (replace(FITS, noise=0.0), Refusal.NOISE),
    ],
)
def test_what_the_owner_does_not_allow_is_refused_by_a_code_and_a_sentence(asked: Asked, code: Refusal) -> None:
    STRICT.check(FITS)
    STRICT.check(replace(FITS, cohort=None, noise=None))  # what is not known yet is checked later
    with pytest.raises(TrustError, match=r"trust\.") as caught:
        STRICT.check(asked)
    assert caught.value.code == code


def test_codes_are_what_a_server_can_read() -> None:
    assert all(re.fullmatch(r"[A-Za-z]{1,40}", code) for code in Refusal)


@pytest.mark.parametrize("verbs", ["", " ", "mask", "masked, trial"])
def test_verbs_that_do_not_exist_are_refused(verbs: str) -> None:
    with pytest.raises(ConfigError, match="must be some of experience, trial, masked"):
        Trust(verbs=verbs)


def test_words_say_whether_a_vector_leaves_by_itself_and_whether_it_can_be_read() -> None:
    assert "it never sends its vector by itself" in STRICT.words()
    plain = " ".join(replace(STRICT, verbs="experience", least_noise=0.0, epsilon_a_year=0.0).words())
    assert "by itself, which the server can read" in plain and "secure sums" not in plain
    assert "by itself, with noise of its own" in " ".join(replace(STRICT, verbs="experience").words())
    assert "epsilon 8 in 365 days" in " ".join(STRICT.words())
    assert "does not tell how it is" in " ".join(STRICT.words())
    assert "counts in its answers to trials how it is" in " ".join(replace(STRICT, health=True).words())


def test_words_say_the_smallest_cohort_of_a_trial_where_it_is_another() -> None:
    both = replace(STRICT, least_trial=3)
    assert "for a trial, that is 3 devices or more" in both.words() and both.for_trial().least_cohort == 3
    for same in (STRICT, replace(STRICT, least_trial=5)):
        assert not any("trial, that" in words for words in same.words()) and same.for_trial().least_cohort == 5
