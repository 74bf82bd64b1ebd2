"""The help of every verb: what it does, and examples that can be given as they stand."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from fedoel.cli.flags import settings_of
from fedoel.cli.main import make_parser
from fedoel.protocol.config import RunConfig


def verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Parsers of all verbs, those below `server` and the like among them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield below
                yield from verbs(below)


@pytest.mark.parametrize("verb", list(verbs(make_parser())), ids=lambda verb: verb.prog)
def test_a_verb_says_what_it_does_and_its_examples_parse(verb: argparse.ArgumentParser) -> None:
    assert verb.description and verb.description.endswith(".") and verb.description[0].isupper()
    head, *examples = (verb.epilog or "").splitlines()
    assert head in ("example:", "examples:") and examples
    shown = verb.format_help()
    for example in examples:
        assert example.startswith(f"  {verb.prog}") and example in shown.splitlines()
        words = shlex.split(example.partition(" > ")[0])[1:]
        arguments = make_parser().parse_args(words)
        if "settings" in arguments:
            assert settings_of(arguments).keys() <= RunConfig().to_flat().keys()
