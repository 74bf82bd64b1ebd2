"""Inputs that a coverage-guided fuzzer has found interesting: decoders read them or refuse them with our own errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from .decoders import CORPUS, DECODERS, corpus, decode, examples, keep


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_refuses_its_corpus_with_errors_of_our_own(name: str) -> None:
    inputs = corpus(name)
    assert len(inputs) > 3
    for data in inputs:
        decode(name, data)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_refuses_what_is_cut_or_changed(name: str) -> None:
    for data in examples()[name]:
        for end in range(0, len(data), 1 + len(data) // 40):
            decode(name, data[:end])
            decode(name, data[:end] + b"\xff" + data[end + 1 :])


@pytest.mark.parametrize("name", sorted(DECODERS.keys() - {"replies", "incoming", "step", "words"}))
def test_a_decoder_reads_what_is_well_formed(name: str) -> None:
    """Otherwise a fuzzer would test nothing but the first check."""
    read = 0
    for data in examples()[name]:
        try:
            DECODERS[name](data)
        except ValueError as error:
            assert name in ("request", "manifest", "run_config", "terms"), error
        else:
            read += 1
    assert read


def test_the_corpus_is_small_and_has_no_other_files() -> None:
    files = list(CORPUS.iterdir())
    assert {path.stem for path in files} <= DECODERS.keys() and sum(path.stat().st_size for path in files) < 100_000


def test_what_is_kept_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.decoders.CORPUS", tmp_path)
    keep("terms", [b"\0\n", b"{}"])
    keep("terms", [b"x" * 10_000, b"{}"])
    assert corpus("terms") == [b"\0\n", b"{}"]
